//! What the monitors said last, for whoever asks: one question at a time, however many want to know.
//!
//! Without monitors the OSDs go on serving, so nobody queues behind a question that takes until its time-out.

use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use crate::objects::pools::PoolError;

/// How long an answer is used again, be it an error.
const GOOD_FOR: Duration = Duration::from_secs(5);
/// A question that takes longer is taken not to be answered.
const ANSWERED_WITHIN: Duration = Duration::from_secs(5);

/// The last answer.
pub(super) struct LastAnswer<T> {
    state: Mutex<State<T>>,
}

struct State<T> {
    last: Option<(Instant, Result<T, io::ErrorKind>)>,
    /// Since when somebody asks.
    asking: Option<Instant>,
}

impl<T: Copy + Send + 'static> LastAnswer<T> {
    pub fn new() -> Arc<LastAnswer<T>> {
        Arc::new(LastAnswer {
            state: Mutex::new(State {
                last: None,
                asking: None,
            }),
        })
    }

    /// The last answer, or a new one if that is old. Blocks while `ask` does; after an error `ask` has a thread of its own.
    pub fn get(
        self: &Arc<Self>,
        now: Instant,
        ask: impl FnOnce() -> Result<T, PoolError> + Send + 'static,
    ) -> Result<T, PoolError> {
        let away = {
            let mut state = self.state.lock();
            let (last, asking) = (state.last, state.asking);
            let since = |then: Instant| now.saturating_duration_since(then);
            match (last, asking) {
                (Some((at, last)), None) if since(at) < GOOD_FOR => return known(last),
                (Some((_, last)), Some(begun)) if since(begun) < ANSWERED_WITHIN => {
                    return known(last);
                }
                (_, Some(_)) => return known(Err(io::ErrorKind::TimedOut)),
                (_, None) => {}
            }
            state.asking = Some(now);
            last.and_then(|(_, last)| last.err())
        };
        let Some(away) = away else {
            return self.learn(ask());
        };
        let asker = Arc::clone(self);
        let asked = std::thread::Builder::new()
            .name("tierdav-monitors".into())
            .spawn(move || asker.learn(ask()).is_ok());
        match asked {
            Ok(_) => known(Err(away)),
            Err(e) => self.learn(Err(e.into())),
        }
    }

    fn learn(&self, answer: Result<T, PoolError>) -> Result<T, PoolError> {
        let kept = match &answer {
            Ok(answer) => Ok(*answer),
            Err(PoolError::Io(e)) => Err(e.kind()),
            Err(_) => Err(io::ErrorKind::Other),
        };
        let mut state = self.state.lock();
        state.last = Some((Instant::now(), kept));
        state.asking = None;
        answer
    }
}

fn known<T>(last: Result<T, io::ErrorKind>) -> Result<T, PoolError> {
    last.map_err(|kind| {
        let why = format!("the monitors, when asked last: {kind}");
        PoolError::Io(io::Error::new(kind, why))
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use std::sync::mpsc::{Sender, channel};
    use std::thread::JoinHandle;

    use super::*;

    fn nobody() -> Result<u32, PoolError> {
        panic!("nobody is to be asked");
    }

    type Answer = Result<u32, PoolError>;

    /// A thread that asks `now`, as soon as its question is on its way, and where the answer comes from.
    fn ask(answers: &Arc<LastAnswer<u32>>, now: Instant) -> (Sender<Answer>, JoinHandle<Answer>) {
        let (asked, is_asked) = channel();
        let (answer, answered) = channel();
        let answers = Arc::clone(answers);
        let question = move || {
            asked.send(()).unwrap();
            answered.recv().unwrap()
        };
        let asker = std::thread::spawn(move || answers.get(now, question));
        is_asked.recv().unwrap();
        (answer, asker)
    }

    #[test]
    fn who_comes_while_another_one_asks_waits_for_nothing() {
        let answers = LastAnswer::new();
        let start = Instant::now();
        let (answer, asker) = ask(&answers, start);
        // Nothing is known yet.
        assert!(answers.get(start, nobody).is_err());
        answer.send(Ok(7)).unwrap();
        assert_eq!(asker.join().unwrap().unwrap(), 7);
        assert_eq!(answers.get(start, nobody).unwrap(), 7);

        // Again, when that is old.
        let later = Instant::now() + GOOD_FOR;
        let (answer, asker) = ask(&answers, later);
        assert_eq!(answers.get(later, nobody).unwrap(), 7);
        assert!(answers.get(later + ANSWERED_WITHIN, nobody).is_err());
        answer
            .send(Err(PoolError::Io(io::ErrorKind::TimedOut.into())))
            .unwrap();
        assert!(asker.join().unwrap().is_err());
    }

    #[test]
    fn after_an_error_nobody_waits_for_the_next_answer() {
        let answers = LastAnswer::new();
        let away = || Err(PoolError::Io(io::ErrorKind::TimedOut.into()));
        assert!(answers.get(Instant::now(), away).is_err());
        assert!(answers.get(Instant::now(), nobody).is_err());

        let later = Instant::now() + GOOD_FOR;
        let (answer, answered) = channel();
        let (gone, is_gone) = channel();
        let asked = move || {
            let said = answered.recv().unwrap();
            gone.send(()).unwrap();
            said
        };
        assert!(answers.get(later, asked).is_err());
        assert!(answers.get(later, nobody).is_err());
        answer.send(Ok(7)).unwrap();
        is_gone.recv().unwrap();
        while answers.state.lock().asking.is_some() {
            std::thread::yield_now();
        }
        assert_eq!(answers.get(later, nobody).unwrap(), 7);
    }
}
