//! Functions of two streams without keys: what they remember belongs to their subtask, or is the same in all of them (PRF-03, PRF-05).

use tidemill::stream::{
    BroadcastContext, BroadcastMap, BroadcastProcessFunction, CoProcessFunction, Collector, Context, Environment,
    OperatorListState, OutputTag, RuntimeContext,
};
use tidemill::{ErrorKind, Result};

use super::{check, one};

/// Pairs every value with the rules that hold for it, whichever comes first.
#[derive(Clone, Default)]
struct Holding {
    rules: BroadcastMap<String, i64>,
    values: OperatorListState<i64>,
}

impl BroadcastProcessFunction<i64, (String, i64)> for Holding {
    type Output = (i64, String);

    fn open(&mut self, context: &mut RuntimeContext<'_>) -> Result<()> {
        self.rules = context.broadcast_state("rules")?;
        self.values = context.operator_list("values")?;
        Ok(())
    }

    fn process(&mut self, value: i64, context: &mut Context<'_, ()>, out: &mut Collector<Self::Output>) -> Result<()> {
        let holding = self.rules.entries(context.broadcast())?.filter(|(_, least)| value >= **least);
        out.extend(holding.map(|(name, _)| (value, name.clone())));
        self.values.add(context.lists(), value)
    }

    fn process_broadcast(
        &mut self,
        (name, least): (String, i64),
        context: &mut BroadcastContext<'_, ()>,
        out: &mut Collector<Self::Output>,
    ) -> Result<()> {
        let values = self.values.get(context.lists())?.iter().copied();
        out.extend(values.filter(|value| *value >= least).map(|value| (value, name.clone())));
        self.rules.put(context.broadcast(), name, least)
    }
}

/// A value reaches one subtask and a rule all of them, so each pair is there once.
#[test]
fn rules_reach_every_subtask_of_values_without_keys() {
    let rules: Vec<(String, i64)> = [5, 9, 40].map(|least| (format!("at least {least}"), least)).to_vec();
    let holding = (1..=60).flat_map(|value| {
        let rules = rules.iter().filter(move |(_, least)| value >= *least);
        rules.map(move |(name, _)| (value, name.clone()))
    });
    check(holding.collect(), |environment| {
        let rules = environment.from_collection(rules.clone()).broadcast_stream();
        environment.generate_sequence(1, 60).connect_broadcast(&rules).process(Holding::default())
    });
}

/// Pairs every number with every word that its subtask sees, and puts odd numbers aside.
#[derive(Clone)]
struct Pairs {
    numbers: OperatorListState<i64>,
    words: OperatorListState<String>,
    odd: OutputTag<i64>,
}

impl Pairs {
    fn new() -> Self {
        let (numbers, words) = (OperatorListState::default(), OperatorListState::default());
        Self { numbers, words, odd: OutputTag::new("odd") }
    }
}

impl CoProcessFunction<i64, String> for Pairs {
    type Output = (i64, String);

    fn open(&mut self, context: &mut RuntimeContext<'_>) -> Result<()> {
        self.numbers = context.operator_list("numbers")?;
        self.words = context.operator_list("words")?;
        Ok(())
    }

    fn process_first(
        &mut self,
        number: i64,
        context: &mut Context<'_, ()>,
        out: &mut Collector<Self::Output>,
    ) -> Result<()> {
        if number % 2 == 1 {
            context.output(&self.odd, number)?;
        }
        out.extend(self.words.get(context.lists())?.iter().map(|word| (number, word.clone())));
        self.numbers.add(context.lists(), number)
    }

    fn process_second(
        &mut self,
        word: String,
        context: &mut Context<'_, ()>,
        out: &mut Collector<Self::Output>,
    ) -> Result<()> {
        out.extend(self.numbers.get(context.lists())?.iter().map(|number| (*number, word.clone())));
        self.words.add(context.lists(), word)
    }
}

#[test]
fn a_function_of_two_streams_without_keys_remembers_what_its_subtask_has_seen() {
    let words = ["to", "be", "or"].map(str::to_owned);
    let pairs = (1..=40).flat_map(|number| words.iter().map(move |word| (number, word.clone()))).collect();
    // Words reach every subtask, so each number meets all of them somewhere.
    let process = |environment: &Environment| {
        let words = environment.from_elements(words.clone()).broadcast();
        environment.generate_sequence(1, 40).connect(&words).process(Pairs::new())
    };
    check(pairs, process);
    check((1..=40).step_by(2).collect(), |environment| process(environment).side_output(&Pairs::new().odd));
}

/// Asks for what only keys have.
#[derive(Clone)]
struct AsIfKeyed {
    declares: bool,
}

impl CoProcessFunction<i64, i64> for AsIfKeyed {
    type Output = i64;

    fn open(&mut self, context: &mut RuntimeContext<'_>) -> Result<()> {
        if self.declares { context.value_state::<i64>("count").map(drop) } else { Ok(()) }
    }

    fn process_first(&mut self, _: i64, context: &mut Context<'_, ()>, _: &mut Collector<i64>) -> Result<()> {
        context.register_event_time_timer(7)
    }

    fn process_second(&mut self, _: i64, context: &mut Context<'_, ()>, _: &mut Collector<i64>) -> Result<()> {
        context.register_event_time_timer(7)
    }
}

impl BroadcastProcessFunction<i64, i64> for AsIfKeyed {
    type Output = i64;

    fn open(&mut self, context: &mut RuntimeContext<'_>) -> Result<()> {
        if self.declares { context.value_state::<i64>("count").map(drop) } else { Ok(()) }
    }

    fn process(&mut self, _: i64, context: &mut Context<'_, ()>, _: &mut Collector<i64>) -> Result<()> {
        context.register_event_time_timer(7)
    }

    fn process_broadcast(&mut self, _: i64, _: &mut BroadcastContext<'_, ()>, _: &mut Collector<i64>) -> Result<()> {
        Ok(())
    }
}

#[test]
fn functions_of_two_streams_without_keys_have_neither_keyed_states_nor_timers() {
    let connected = |declares: bool| {
        let environment = one();
        let (first, second) = (environment.generate_sequence(1, 3), environment.generate_sequence(1, 3));
        first.connect(&second).process(AsIfKeyed { declares }).collect().unwrap_err()
    };
    let broadcast = |declares: bool| {
        let environment = one();
        let (first, second) = (environment.generate_sequence(1, 3), environment.generate_sequence(1, 3));
        first.connect_broadcast(&second.broadcast_stream()).process(AsIfKeyed { declares }).collect().unwrap_err()
    };
    for (error, text) in [
        (connected(true), "keyed state 'count' in 'co-process', whose records have no key"),
        (broadcast(true), "keyed state 'count' in 'broadcast process', whose records have no key"),
        (connected(false), "a timer at 7 in a function that has no key"),
        (broadcast(false), "a timer at 7 in a function that has no key"),
    ] {
        assert!(error.to_string().contains(text), "{error}");
        assert_eq!(error.kind(), ErrorKind::Request, "{error}");
    }
}
