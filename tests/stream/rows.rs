//! Functions of rows, unions, partitionings, and the shape of the tasks that run them.

use arrow::array::{AsArray, RecordBatch};
use arrow::datatypes::Int64Type;
use serde::{Deserialize, Serialize};
use tidemill::stream::Environment;
use tidemill_core::Gate;

use super::{check, one, words};

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
struct Visit {
    page: String,
    user: Option<u32>,
    tags: Vec<String>,
}

#[test]
fn functions_of_rows_mean_what_they_mean_on_iterators() {
    let expected = (1..=200i64).filter(|n| n % 3 != 0).flat_map(|n| vec![n.to_string(); (n % 4) as usize]);
    check(expected.collect(), |environment| {
        environment
            .generate_sequence(1, 200)
            .filter(|n| n % 3 != 0)
            .map(|n| (n, n % 4))
            .flat_map(|(n, times), out| out.extend((0..times).map(|_| n.to_string())))
    });
}

#[test]
fn records_of_any_shape_travel_between_tasks() {
    let visits: Vec<Visit> = (0..50)
        .map(|n| Visit {
            page: format!("page {}", n % 7),
            user: (n % 3 != 0).then_some(n),
            tags: (0..n % 4).map(|tag| tag.to_string()).collect(),
        })
        .collect();
    check(visits.clone(), |environment| {
        environment.from_collection(visits.clone()).rebalance().map(|visit| visit).shuffle().filter(|_| true)
    });
}

#[test]
fn order_is_kept_by_one_subtask() {
    let rows: Vec<i64> = (0..20_000).collect();
    assert_eq!(one().from_collection(rows.clone()).map(|n| n).collect().unwrap(), rows);
}

#[test]
fn a_union_keeps_doubles() {
    let expected = (1..=30).chain(10..=20).chain(1..=30).collect();
    check(expected, |environment| {
        let (all, some) = (environment.generate_sequence(1, 30), environment.generate_sequence(10, 20));
        all.union(&some).union(&all)
    });
}

#[test]
fn a_stream_may_have_several_consumers() {
    let expected = (1..=40).flat_map(|n| [n * 2, n * 2 + 1]).collect();
    check(expected, |environment| {
        let doubled = environment.generate_sequence(1, 40).map(|n| n * 2);
        doubled.union(&doubled.map(|n| n + 1))
    });
}

#[test]
fn whole_batches_are_functions_too() {
    check((1..=50).map(|n| n * 10).collect(), |environment| {
        environment.generate_sequence(1, 50).rebalance().map_batches::<i64>(|batch: RecordBatch| {
            let scaled = batch.column(0).as_primitive::<Int64Type>().unary::<_, Int64Type>(|n| n * 10);
            Ok(RecordBatch::try_from_iter([("item", std::sync::Arc::new(scaled) as _)])?)
        })
    });
}

#[test]
fn every_partitioning_delivers_every_record() {
    let all: Vec<i64> = (1..=60).collect();
    check(all.clone(), |environment| environment.generate_sequence(1, 60).rescale().map(|n| n));
    check(all.clone(), |environment| environment.generate_sequence(1, 60).global().map(|n| n));
    check(all.clone(), |environment| environment.generate_sequence(1, 60).forward().map(|n| n));
    check(all, |environment| {
        environment.generate_sequence(1, 60).partition_custom(|n| n % 5, |key, count| *key as usize % count).map(|n| n)
    });
}

#[test]
fn a_broadcast_reaches_every_consumer() {
    let environment = one();
    let copies = environment.generate_sequence(1, 10).broadcast().map(|n| n).set_parallelism(3);
    let mut copies = copies.collect().unwrap();
    copies.sort();
    assert_eq!(copies, (1..=10).flat_map(|n| [n; 3]).collect::<Vec<i64>>());
}

#[test]
fn a_custom_partitioner_decides() {
    let environment = one();
    environment.set_parallelism(3);
    let numbers = environment.generate_sequence(1, 30).partition_custom(|n| n % 3, |key, _| *key as usize);
    // Only forward edges follow, so that a file is what one consumer got.
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("out");
    numbers.map(|n| n).write_as_text(path.to_str().unwrap(), tidemill::stream::WriteMode::NoOverwrite);
    environment.execute("custom").unwrap();
    for consumer in 0..3i64 {
        let lines = std::fs::read_to_string(path.join((consumer + 1).to_string())).unwrap();
        let mut found: Vec<i64> = lines.lines().map(|line| line.parse().unwrap()).collect();
        found.sort();
        assert_eq!(found, (1..=30).filter(|n| n % 3 == consumer).collect::<Vec<_>>());
    }
}

#[test]
fn functions_are_fused_and_gates_cut() {
    let environment = one();
    let numbers = environment.generate_sequence(1, 3);
    numbers.map(|n| n + 1).filter(|n| *n > 1).flat_map(|n, out| out.collect(n)).print();
    let plan = environment.execution_plan().unwrap();
    assert_eq!(plan.matches("map -> filter -> flat_map").count(), 2, "one line as a name, one as an operator:\n{plan}");
    assert_eq!(plan.matches("[1]").count(), 0, "{plan}");

    let environment = one();
    let numbers = environment.generate_sequence(1, 3);
    numbers.map(|n| n + 1).set_buffer_timeout(Gate::Full).filter(|n| *n > 1).print();
    let plan = environment.execution_plan().unwrap();
    assert!(plan.contains("<- [0] forward, full"), "{plan}");
}

#[test]
fn names_and_chains_are_the_users() {
    let environment = one();
    let numbers = environment.generate_sequence(1, 3);
    numbers.map(|n| n + 1).name("plus one").uid("a").filter(|n| *n > 1).start_new_chain().print().name("shown");
    let plan = environment.execution_plan().unwrap();
    assert!(plan.contains("[0] sequence -> plus one (parallelism 1)"), "{plan}");
    assert!(plan.contains("[1] filter -> shown (parallelism 1)"), "{plan}");
}

#[test]
fn slots_are_shared_within_a_group_alone() {
    let run = |slots: &str| {
        let environment = Environment::local();
        environment.set_parallelism(1).set("taskmanager.numberOfTaskSlots", slots);
        let numbers = environment.generate_sequence(1, 3).slot_sharing_group("a");
        let rows = numbers.map(|n| n + 1).map(|n| n * 2).slot_sharing_group("b").filter(|n| *n > 4);
        rows.print();
        let plan = environment.execution_plan().unwrap();
        let tasks = plan.lines().filter(|line| line.starts_with('[')).count();
        assert_eq!(tasks, 2, "one of each group, and what is behind it:\n{plan}");
        rows.collect()
    };
    assert!(run("1").unwrap_err().to_string().starts_with("the job needs 2 of 1 slots, and 1 are free; lower"));
    assert_eq!(run("2").unwrap(), [6, 8]);
}

#[test]
fn one_line_becomes_many_words() {
    check(words("a b c a"), |environment| {
        let lines = environment.from_elements(["a b".to_owned(), "c a".to_owned()]);
        lines.flat_map(|line, out| out.extend(words(&line)))
    });
}
