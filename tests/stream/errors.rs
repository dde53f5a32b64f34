//! What is wrong with a program is said when it runs, and says what.

use std::net::TcpListener;
use std::time::Duration;

use tidemill::stream::{DataStream, Environment, OutputTag, Record, Sliding, Tumbling};
use tidemill_core::{Error, ErrorKind};

use super::one;

fn error<T: Record + std::fmt::Debug>(stream: &DataStream<T>) -> Error {
    stream.collect().unwrap_err()
}

#[test]
fn nothing_to_execute_is_an_error() {
    let environment = one();
    let numbers = environment.generate_sequence(1, 3);
    let nothing = environment.execute("nothing").unwrap_err();
    assert!(nothing.to_string().contains("no sink was added"), "{nothing}");
    // Collecting runs by itself and leaves nothing to execute.
    numbers.collect().unwrap();
    assert!(environment.execute("nothing").is_err());
    numbers.print_to_err();
    environment.execute("something").unwrap();
    assert!(environment.execute("nothing new").is_err());
}

#[test]
fn a_failing_function_fails_the_job() {
    let numbers = one().generate_sequence(1, 3);
    let failed = error(&numbers.try_map(|n| if n == 2 { Err("two is odd") } else { Ok(n) }));
    assert_eq!((failed.kind(), failed.message().contains("two is odd (in ")), (ErrorKind::Data, true), "{failed}");
    let own = error(&numbers.try_filter(|_| Err::<bool, _>(Error::exhausted("no more"))));
    assert_eq!(own.kind(), ErrorKind::Exhausted);
    let panicked = error(&numbers.map(|n| 10 / (n - 2)));
    assert!(panicked.to_string().contains("attempt to divide by zero"), "{panicked}");
}

#[test]
fn windows_need_time() {
    let numbers = one().generate_sequence(1, 3).map(|n| (n, n));
    let untimed =
        error(&numbers.key_by(|row| row.0).window(Tumbling::of(Duration::from_secs(1))).sum(|row| &mut row.1));
    assert!(untimed.to_string().contains("assign_timestamps_and_watermarks"), "{untimed}");
    let numbers = one().generate_sequence(1, 3).map(|n| (n, n));
    let empty = Sliding::of(Duration::from_secs(1), Duration::ZERO).in_processing_time();
    let empty = error(&numbers.key_by(|row| row.0).window(empty).sum(|row| &mut row.1));
    assert!(empty.to_string().contains("slide of a window is 0"), "{empty}");
}

#[test]
fn what_cannot_be_a_record_or_a_key_is_named() {
    let odd = one().generate_sequence(1, 3).map(|n| serde_json::json!({ "n": n }));
    assert!(error(&odd).to_string().contains("serde_json::value::Value"));
    #[derive(Debug, serde::Serialize, serde::Deserialize)]
    enum Either {
        Left(i64),
        Right(String),
    }
    let keyed = one().generate_sequence(1, 3).map(|n| (n, 1i64)).key_by(|row| match row.0 {
        1 => Either::Left(1),
        n => Either::Right(n.to_string()),
    });
    let no_key = error(&keyed.sum(|row| &mut row.1));
    assert!(no_key.to_string().contains("Either cannot be a key"), "{no_key}");
}

#[test]
fn a_wrong_setting_or_placement_is_named() {
    let environment = one();
    environment.set("paralelism.default", "2");
    assert!(error(&environment.generate_sequence(1, 3)).to_string().contains("did you mean 'parallelism.default'?"));
    let forward = one().generate_sequence(1, 3).forward().map(|n| n).set_parallelism(2);
    assert!(error(&forward).to_string().contains("with parallelism 1 to 'map' with parallelism 2"));
    let numbers = one().generate_sequence(1, 3);
    assert!(error(&numbers.union(&numbers).name("x")).to_string().contains("name on a union"));
    let tag: OutputTag<i64> = OutputTag::new("late");
    let numbers = one().generate_sequence(1, 3);
    assert!(error(&numbers.side_output(&tag)).to_string().contains("no side output 'late'"));
    assert!(error(&one().read_text_file("/no/such/file")).to_string().contains("/no/such/file"));
}

#[test]
fn an_endless_job_can_be_cancelled() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let environment = Environment::local();
    environment.socket_text_stream("127.0.0.1", listener.local_addr().unwrap().port(), "\n", None).print_to_err();
    let job = environment.execute_async("endless").unwrap();
    let (_peer, _) = listener.accept().unwrap();
    assert!(job.outcome().is_none());
    job.cancel();
    assert_eq!(job.join().unwrap_err().kind(), ErrorKind::Cancelled);
}

#[test]
fn an_endless_source_cannot_be_held_back_for_ever() {
    let environment = Environment::local();
    environment.set("execution.buffer-timeout", "infinite").set_parallelism(2);
    environment.socket_text_stream("127.0.0.1", 9, "\n", Some(0)).rebalance().map(|line| line).print();
    let endless = environment.execute("endless").unwrap_err();
    assert!(endless.to_string().contains("below source 'socket', which never ends"), "{endless}");
}

#[tokio::test]
async fn an_async_task_is_not_blocked() {
    let environment = Environment::local();
    let numbers = environment.generate_sequence(1, 3);
    assert!(numbers.collect().unwrap_err().to_string().contains("use collect_async"));
    assert_eq!(numbers.map(|n| n).set_parallelism(1).collect_async().await.unwrap().len(), 3);
    numbers.print_to_err();
    environment.execute_async("printing").unwrap().wait().await.unwrap();
    let within = Environment::within(tidemill_exec::runtime::simulated(1), Default::default());
    assert_eq!(within.generate_sequence(1, 3).collect_async().await.unwrap(), [1, 2, 3]);
}
