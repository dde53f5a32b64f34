//! What is broadcast to a function whose rows have no keys.

use super::*;

/// Tells what rule there is for each value. Rows without one wait for it; a rule that comes a second time is none any more.
#[derive(Clone, Default)]
struct Waiting {
    rules: BroadcastMap<i64, String>,
    rows: OperatorListState<Row>,
}

impl BroadcastProcessFunction<Row, Row> for Waiting {
    type Output = String;

    fn open(&mut self, context: &mut RuntimeContext<'_>) -> Result<()> {
        self.rules = context.broadcast_state("rules")?;
        self.rows = context.operator_list("rows")?;
        Ok(())
    }

    fn process(&mut self, row: Row, context: &mut Context<'_, ()>, out: &mut Collector<String>) -> Result<()> {
        match self.rules.get(context.broadcast(), &row.2)? {
            Some(rule) => {
                out.collect(format!("{row:?} {rule}"));
                Ok(())
            }
            None => self.rows.add(context.lists(), row),
        }
    }

    fn process_broadcast(
        &mut self,
        (name, time, value): Row,
        context: &mut BroadcastContext<'_, ()>,
        out: &mut Collector<String>,
    ) -> Result<()> {
        // Some steps before rows have that value, and some behind others.
        let value = value - 8;
        if self.rules.remove(context.broadcast(), &value)?.is_some() {
            return Ok(());
        }
        let (told, left) = self.rows.take(context.lists())?.into_iter().partition::<Vec<Row>, _>(|row| row.2 == value);
        out.extend(told.iter().map(|row| format!("{row:?} at last {name} {time}")));
        self.rows.set(context.lists(), left)?;
        self.rules.put(context.broadcast(), value, format!("{name} {time}"))
    }
}

/// Whoever has a row sees every rule, and each row is told of once, also when it had to wait for longer than its subtask lived.
#[test]
fn rules_for_rows_without_keys_are_restored() {
    let program = |rows: &DataStream<Row>, others: &DataStream<Row>| {
        let rules = others.filter(|row| row.2 % 2 == 0).broadcast_stream();
        rows.connect_broadcast(&rules).process(Waiting::default()).print_to_err()
    };
    let lines = run(&program, &[], PLAIN).concat();
    let has = |text: &str| lines.iter().filter(|line| line.contains(text)).count();
    assert!(has("at last") > 3 && lines.len() - has("at last") > 3, "{lines:?}");
    check(program);
}
