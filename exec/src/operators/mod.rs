//! What tasks do to rows, one operator a file, each the same for bounded and unbounded input.
//!
//! Row by row: [`calc`], [`window_assign`]. Over event time: [`window_aggregate`]. Functions of users with states and timers:
//! [`process`], [`timers`]; what is broadcast to them: [`collect_variable`]. What they evaluate: [`expression`].

pub mod aggregate;
pub mod calc;
pub mod collect_variable;
#[cfg(test)]
mod conformance;
pub mod expression;
pub mod group_aggregate;
mod keyed;
pub mod limit;
pub mod lookup_join;
mod pending;
pub mod process;
pub mod saved;
pub mod session_aggregate;
pub mod timers;
pub mod top_n;
pub mod window_aggregate;
pub mod window_assign;
pub mod window_assign_exec;

pub use keyed::EXPIRED_SLOTS;

/// The context of an operator that is tested alone.
#[cfg(test)]
pub(crate) fn test_context(metrics: tidemill_core::metrics::Metrics) -> tidemill_core::operator::OperatorContext {
    use std::sync::Arc;

    use futures::future::BoxFuture;

    #[derive(Debug)]
    struct Frozen;

    impl tidemill_core::clock::Clock for Frozen {
        fn now_millis(&self) -> i64 {
            0
        }

        fn monotonic(&self) -> std::time::Duration {
            std::time::Duration::ZERO
        }

        fn sleep(&self, _duration: std::time::Duration) -> BoxFuture<'static, ()> {
            Box::pin(std::future::pending())
        }
    }

    impl tidemill_core::operator::Wakeups for Frozen {
        fn at(&self, _millis: i64, _token: u64) {}

        fn after(&self, _work: BoxFuture<'static, ()>, _token: u64) {}
    }

    tidemill_core::operator::OperatorContext {
        operator: "test".into(),
        subtask: 0,
        parallelism: 1,
        max_parallelism: 128,
        batch_rows: 3,
        buffer_timeout: tidemill_core::Gate::default(),
        clock: Arc::new(Frozen),
        metrics,
        backend: Arc::new(crate::state::MemoryBackend { max_parallelism: 128 }),
        wakeups: Arc::new(Frozen),
        shared: tidemill_core::shared::SharedContext::default(),
    }
}
