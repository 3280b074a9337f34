//! Independent work on all cores.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

/// Cores to use.
pub fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

/// Calls `work` on every item, on all cores; answers in the order of the items.
pub fn map<T: Sync, R: Send>(items: &[T], work: impl Fn(&T) -> R + Sync) -> Vec<R> {
    let next = AtomicUsize::new(0);
    let done = Mutex::new(Vec::with_capacity(items.len()));
    std::thread::scope(|scope| {
        for _ in 0..cores().min(items.len()) {
            scope.spawn(|| {
                loop {
                    let at = next.fetch_add(1, Ordering::Relaxed);
                    let Some(item) = items.get(at) else {
                        return;
                    };
                    let result = work(item);
                    if let Ok(mut done) = done.lock() {
                        done.push((at, result));
                    }
                }
            });
        }
    });
    let mut done = done.into_inner().unwrap_or_else(PoisonError::into_inner);
    done.sort_by_key(|(at, _)| *at);
    done.into_iter().map(|(_, result)| result).collect()
}

/// Items that are handed to the jobs at once.
const ROUND: usize = 1 << 16;

/// Hands all items to each job in their order, on all cores, while the next ones are fetched. No more than two
/// rounds of items are in memory.
///
/// # Errors
/// The first one among the items; what was done is lost then.
pub fn feed<T: Copy + Sync, J: Send, E>(
    mut items: impl Iterator<Item = Result<T, E>>,
    jobs: Vec<J>,
    step: impl Fn(&mut J, &[T]) + Sync,
) -> Result<Vec<J>, E> {
    let jobs: Vec<Mutex<J>> = jobs.into_iter().map(Mutex::new).collect();
    let mut fetch = |into: &mut Vec<T>| -> Result<(), E> {
        into.clear();
        for item in items.by_ref().take(ROUND) {
            into.push(item?);
        }
        Ok(())
    };
    let (mut round, mut next) = (Vec::with_capacity(ROUND), Vec::with_capacity(ROUND));
    fetch(&mut round)?;
    while !round.is_empty() {
        let free = AtomicUsize::new(0);
        std::thread::scope(|scope| {
            for _ in 0..cores().min(jobs.len()) {
                scope.spawn(|| {
                    while let Some(job) = jobs.get(free.fetch_add(1, Ordering::Relaxed)) {
                        let mut job = job.lock().unwrap_or_else(PoisonError::into_inner);
                        step(&mut job, &round);
                    }
                });
            }
            fetch(&mut next)
        })?;
        std::mem::swap(&mut round, &mut next);
    }
    let inner = |job: Mutex<J>| job.into_inner().unwrap_or_else(PoisonError::into_inner);
    Ok(jobs.into_iter().map(inner).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_job_sees_all_items_in_their_order() {
        let count = 3 * ROUND + 17;
        let items = || (0..count).map(Ok::<_, usize>);
        let jobs = vec![Vec::new(); 5];
        let seen = feed(items(), jobs, |job, part| job.extend_from_slice(part));
        assert!(seen.is_ok_and(|jobs| jobs.iter().all(|job| job.iter().copied().eq(0..count))));
        let broken = items().map(|n| n.and_then(|n| if n > 2 * ROUND { Err(n) } else { Ok(n) }));
        assert_eq!(feed(broken, vec![()], |_, _| ()), Err(2 * ROUND + 1));
    }

    #[test]
    fn answers_come_in_order() {
        let items: Vec<u64> = (0..1000).collect();
        let squares = map(&items, |n| n * n);
        assert!(
            squares
                .iter()
                .enumerate()
                .all(|(i, s)| *s == (i * i) as u64)
        );
        assert!(map(&[0_u8; 0], |_| ()).is_empty());
    }
}
