//! SIGTERM: whoever watches over a statement hears of it and cancels its job; where nobody does, the process ends at once.

use std::future::pending;
use std::sync::Arc;

use tidemill_core::Result;
use tokio::runtime::Handle;
use tokio::sync::watch;

use super::report::TERMINATED;

/// Hears SIGTERM for as long as the process lives.
#[derive(Clone, Debug)]
pub struct Terminations {
    count: Arc<watch::Sender<u32>>,
}

/// What one statement hears.
#[derive(Debug)]
pub struct Termination {
    count: watch::Receiver<u32>,
    heard: u32,
}

impl Terminations {
    /// Begins to listen, on `runtime`.
    pub fn listen(runtime: &Handle) -> Result<Self> {
        let count = Arc::new(watch::Sender::new(0));
        #[cfg(unix)]
        {
            let _within = runtime.enter();
            let mut signals = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate())?;
            let count = count.clone();
            runtime.spawn(async move {
                while signals.recv().await.is_some() {
                    count.send_modify(|count| *count += 1);
                    if count.receiver_count() == 0 {
                        std::process::exit(TERMINATED.into());
                    }
                }
            });
        }
        Ok(Self { count })
    }

    /// Hears signals that come from now on, and one that has come before.
    pub fn subscribe(&self) -> Termination {
        Termination { count: self.count.subscribe(), heard: 0 }
    }

    /// Hears only signals that come from now on.
    pub fn subscribe_anew(&self) -> Termination {
        let count = self.count.subscribe();
        let heard = *count.borrow();
        Termination { count, heard }
    }
}

impl Termination {
    /// Waits for a signal that was not heard yet.
    pub async fn heard(&mut self) {
        let heard = self.heard;
        let count = self.count.wait_for(|count| *count > heard).await.map(|count| *count);
        match count {
            Ok(count) => self.heard = count,
            // Nobody listens any more: the process is about to end.
            Err(_) => pending().await,
        }
    }
}
