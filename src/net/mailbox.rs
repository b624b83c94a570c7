//! Things that one thread hands to another, never more than some at once.
//!
//! Owns the row they wait in. Either side may close it; what is in it then can
//! still be taken. Knows no loop: whoever fills it for a loop wakes the loop.

use std::collections::VecDeque;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

struct Row<T> {
    things: VecDeque<T>,
    closed: bool,
}

/// See the file's head.
pub struct Mailbox<T> {
    row: Mutex<Row<T>>,
    changed: Condvar,
    most: usize,
}

impl<T> Mailbox<T> {
    /// An empty one for so many things.
    pub fn new(most: usize) -> Mailbox<T> {
        let row = Mutex::new(Row { things: VecDeque::new(), closed: false });
        Mailbox { row, changed: Condvar::new(), most }
    }

    fn row(&self) -> MutexGuard<'_, Row<T>> {
        self.row.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The row once it is closed or as `ready` wants it.
    fn wait(&self, ready: impl Fn(&Row<T>) -> bool) -> MutexGuard<'_, Row<T>> {
        let waits = |row: &mut Row<T>| !row.closed && !ready(row);
        self.changed.wait_while(self.row(), waits).unwrap_or_else(PoisonError::into_inner)
    }

    fn enter(&self, mut row: MutexGuard<'_, Row<T>>, thing: T) -> bool {
        let fits = !row.closed && row.things.len() < self.most;
        if fits {
            row.things.push_back(thing);
            self.changed.notify_all();
        }
        fits
    }

    /// Puts a thing in, if it is open and there is room; whether it did.
    pub fn try_put(&self, thing: T) -> bool {
        self.enter(self.row(), thing)
    }

    /// Puts a thing in, and waits for room; not in one that is or gets closed.
    pub fn put(&self, thing: T) -> bool {
        self.enter(self.wait(|row| row.things.len() < self.most), thing)
    }

    /// The next thing, if there is one.
    pub fn try_take(&self) -> Option<T> {
        let thing = self.row().things.pop_front();
        self.changed.notify_all();
        thing
    }

    /// The next thing, which it waits for; none in one that is closed and empty.
    pub fn take(&self) -> Option<T> {
        let thing = self.wait(|row| !row.things.is_empty()).things.pop_front();
        self.changed.notify_all();
        thing
    }

    /// Whether it is closed and empty: nothing will ever come.
    pub fn is_over(&self) -> bool {
        let row = self.row();
        row.closed && row.things.is_empty()
    }

    /// Nothing more may come in.
    pub fn close(&self) {
        self.row().closed = true;
        self.changed.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;
    use std::thread;

    #[test]
    fn all_arrive_in_order_and_nobody_waits_at_a_closed_one() {
        let (there, back) = (Arc::new(Mailbox::new(2)), Arc::new(Mailbox::new(1000)));
        let (from, to) = (there.clone(), back.clone());
        let echo = thread::spawn(move || {
            while let Some(number) = from.take() {
                assert!(to.put(number));
            }
            to.close();
        });
        assert!((0..500).all(|number| there.put(number)));
        there.close();
        assert!(!there.put(500) && !there.try_put(500));
        echo.join().unwrap();
        assert_eq!(
            (0..500).map(|_| back.take()).collect::<Option<Vec<_>>>(),
            Some((0..500).collect())
        );
        assert_eq!((back.is_over(), back.take(), back.try_take()), (true, None, None));
    }

    #[test]
    fn it_holds_no_more_than_it_may() {
        let full = Arc::new(Mailbox::new(1));
        assert!(full.try_put('a') && !full.try_put('b') && !full.is_over());
        let other = full.clone();
        let waits = thread::spawn(move || other.put('c'));
        full.close();
        assert!(!waits.join().unwrap());
        assert_eq!((full.try_take(), full.is_over()), (Some('a'), true));
    }
}
