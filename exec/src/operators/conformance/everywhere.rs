//! A checkpoint after every batch and every watermark, and a crash at every place.
//!
//! ```text
//! base  changes  changes  changes      the next one has begun, and is lost with what it emitted
//!  │       │        │        │    ~~~~
//! unit 1  unit 2  unit 3 … unit n │ unit n+1
//!                                 └── a new operator: base laid over by all changes, then unit n+1 once more
//! ```

use tidemill_core::state::SnapshotScope;

use super::restore::{Stored, share, store};
use super::script::{Row, Script};
use super::subjects::Subject;
use super::{Record, Shell, Way};

/// What goes in between two checkpoints.
enum Unit {
    Rows(Vec<Row>),
    /// A watermark, which ends a step of the script.
    Watermark(i64),
}

fn units(script: &Script, way: Way) -> Vec<Unit> {
    let of_step = |step: &super::script::Step| {
        let rows = step.rows.chunks(way.cut).map(|rows| Unit::Rows(rows.to_vec()));
        rows.chain([Unit::Watermark(step.watermark)]).collect::<Vec<_>>()
    };
    script.steps.iter().flat_map(of_step).collect()
}

/// How many places there are to crash at.
pub fn places(script: &Script, way: Way) -> usize {
    units(script, way).len()
}

/// The script with a checkpoint after every unit, and a crash in the middle of unit `place`, if there is such a unit.
pub fn run_crashed(subject: &Subject, script: &Script, way: Way, place: usize) -> Record {
    let mut run =
        Run { shell: Shell::open(subject, way), stored: Stored::new(), record: vec![], scope: SnapshotScope::Base };
    let reads_table = run.shell.read_table(&script.table);
    let table = std::mem::take(&mut run.shell.seen);
    run.record.push(table);
    run.checkpoint();
    let units = units(script, way);
    for unit in &units[..place] {
        run.feed(unit);
        run.checkpoint();
    }
    if let Some(lost) = units.get(place) {
        let committed = run.shell.seen.clone();
        match lost {
            Unit::Rows(rows) => run.shell.feed_rows(rows),
            Unit::Watermark(millis) => drop(run.shell.step(&[], *millis)),
        }
        run.shell = Shell::open(subject, way);
        run.shell.operator.restore(share(&run.stored, 0, 1)).unwrap();
        if reads_table {
            run.shell.end_table();
        }
        run.shell.seen = committed;
        run.scope = SnapshotScope::Base;
    }
    for unit in &units[place..] {
        run.feed(unit);
        run.checkpoint();
    }
    run.record.push(run.shell.close());
    run.record
}

struct Run<'a> {
    shell: Shell<'a>,
    stored: Stored,
    record: Record,
    scope: SnapshotScope,
}

impl Run<'_> {
    fn feed(&mut self, unit: &Unit) {
        match unit {
            Unit::Rows(rows) => self.shell.feed_rows(rows),
            Unit::Watermark(millis) => {
                let seen = self.shell.step(&[], *millis);
                self.record.push(seen);
            }
        }
    }

    fn checkpoint(&mut self) {
        store(&mut self.shell, self.scope, &mut self.stored);
        self.scope = SnapshotScope::Changes;
    }
}
