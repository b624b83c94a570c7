//! A value that a thread of its own computes once.
//!
//! Owns the thread, because what it does may block, and wakes the loop at its end.

use mio::Waker;
use std::sync::mpsc::{sync_channel, Receiver, TryRecvError};
use std::sync::Arc;
use std::thread;

/// A value under way. Dropping this abandons the value, not the thread.
#[derive(Debug)]
pub struct OneShot<T>(Receiver<T>);

/// No thread computes the value: the system had none, or the value was taken before.
#[derive(Debug)]
pub struct Abandoned;

impl<T: Send + 'static> OneShot<T> {
    /// Runs `work` in a thread of this name, then wakes `waker`.
    pub fn spawn(
        name: &str,
        waker: Arc<Waker>,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> OneShot<T> {
        let (sender, receiver) = sync_channel(1);
        // Without a thread the sender is dropped here: the value is abandoned.
        let _ = thread::Builder::new().name(name.into()).spawn(move || {
            let _ = sender.send(work());
            drop(sender);
            let _ = waker.wake();
        });
        OneShot(receiver)
    }

    /// Takes the value; `None` while it is under way.
    pub fn take(&self) -> Option<Result<T, Abandoned>> {
        match self.0.try_recv() {
            Ok(value) => Some(Ok(value)),
            Err(TryRecvError::Empty) => None,
            Err(TryRecvError::Disconnected) => Some(Err(Abandoned)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use mio::{Events, Poll, Token};

    #[test]
    fn the_value_comes_once_and_wakes_the_loop() {
        let mut poll = Poll::new().unwrap();
        let waker = Arc::new(Waker::new(poll.registry(), Token(0)).unwrap());
        let (go, wait) = sync_channel::<()>(1);
        let one_shot = OneShot::spawn("test", waker.clone(), move || wait.recv().map(|()| 7));
        assert!(one_shot.take().is_none());
        go.send(()).unwrap();
        let mut events = Events::with_capacity(1);
        while events.is_empty() {
            poll.poll(&mut events, None).unwrap();
        }
        assert!(matches!(one_shot.take(), Some(Ok(Ok(7)))));
        assert!(matches!(one_shot.take(), Some(Err(Abandoned))));
    }
}
