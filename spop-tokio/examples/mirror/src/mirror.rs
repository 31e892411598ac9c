//! The handler: what HAProxy waits for, and what goes on behind it.

use std::sync::Arc;

use http::HeaderValue;
use spop_tokio::{Request, Router};
use tokio::sync::Semaphore;

use crate::{
    copy::{Copy, Target},
    counts::{Counts, Loss},
    options::{Cut, Options},
    sender::Sender,
};

/// The name of the message.
const MESSAGE: &str = "mirror";

/// What the handler knows.
#[derive(Debug)]
pub(crate) struct Mirror {
    target: Target,
    /// From 0 to 100.
    sample: f64,
    cut: Cut,
    /// For copies under way, in KiB.
    memory: Arc<Semaphore>,
    sender: Arc<Sender>,
}

impl Mirror {
    /// # Errors
    /// Those of [`Sender::new`].
    pub(crate) fn new(options: &Options) -> anyhow::Result<Self> {
        Ok(Self {
            target: Target {
                upstream: options.upstream.clone(),
                host: options.host.clone(),
                // The seed of the process is random.
                id: HeaderValue::from(fastrand::u64(..)),
            },
            sample: options.sample,
            cut: options.cut,
            memory: Arc::new(Semaphore::new(options.memory as usize * 1024)),
            sender: Arc::new(Sender::new(options)?),
        })
    }

    pub(crate) fn counts(&self) -> &Arc<Counts> {
        &self.sender.counts
    }

    pub(crate) fn router(self) -> Router<Self> {
        Router::with_state(self).on(MESSAGE, copy)
    }

    fn is_sampled(&self) -> bool {
        self.sample >= 100.0 || fastrand::f64() * 100.0 < self.sample
    }
}

/// Answers at once, with nothing. The copy is sent behind the answer.
async fn copy(mirror: &Mirror, request: Request) -> anyhow::Result<()> {
    let counts = mirror.counts();
    if !mirror.is_sampled() {
        counts.not_sampled.add();
        return Ok(());
    }
    let Some(background) = request.background() else {
        counts.lose(Loss::Queue, "--queue are under way");
        return Ok(());
    };
    let copy = match Copy::of(&request, &mirror.target) {
        Ok(Some(copy)) => copy,
        Ok(None) => {
            counts.lose(Loss::Loop, "--upstream leads back to HAProxy");
            return Ok(());
        }
        Err(error) => {
            counts.lose(Loss::Invalid, "a request cannot be sent again");
            return Err(error);
        }
    };
    if copy.is_cut {
        counts.cut.add();
        if mirror.cut == Cut::Skip {
            return Ok(());
        }
    }
    let kib = u32::try_from(copy.bytes.div_ceil(1024)).unwrap_or(u32::MAX);
    let Ok(memory) = Arc::clone(&mirror.memory).try_acquire_many_owned(kib) else {
        counts.lose(Loss::Memory, "those under way take --memory");
        return Ok(());
    };
    let sender = Arc::clone(&mirror.sender);
    tokio::spawn(async move {
        sender.send(copy).await;
        drop((memory, background));
    });
    Ok(())
}
