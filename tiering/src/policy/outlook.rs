//! What an object's past says about its future: head time that the cache will save per second of its stay.
//!
//! Objects fall into classes by size, origin and number of uses; a class learns at which age (since the
//! last use) its objects are used again, or deleted. From that comes an index per class and age: the
//! highest rate of saving that any length of stay promises (Gittins; for caches: Beckmann, Chen, Cidon:
//! "LHD: improving cache hit rate by maximizing hit density", NSDI '18, here in head time and with deaths).

use crate::types::Nanos;

/// Ages are told apart on a scale of powers of two, in quarters of a second: up to three days.
pub(super) const AGES: usize = 20;
const QUARTER: u64 = Nanos::PER_SECOND / 4;
const SIZES: usize = 4;
const USES: usize = 9;
const CLASSES: usize = SIZES * 2 * USES;
/// A class is believed over all classes of its uses, and these over the prior, after so many objects.
const TRUST: f64 = 4.0;
/// Rounds in which what follows a use is valued.
const ROUNDS: usize = 3;

/// Which objects learn together.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Class(u8);

impl Class {
    /// `uses` counts reads; `written`: its making was seen.
    pub(super) fn new(len: u32, written: bool, uses: u32) -> Self {
        let size = match len {
            0..=65_536 => 0,
            65_537..=524_288 => 1,
            524_289..=2_097_152 => 2,
            _ => 3,
        };
        // 0, 1, 2 to 3, 4 to 7 and so on: by counting bits, for a branch would be guessed wrongly half of the time.
        let uses = ((u32::BITS - uses.leading_zeros()) as usize).min(USES - 1);
        Self(((size * 2 + usize::from(written)) * USES + uses) as u8)
    }

    fn index(self) -> usize {
        usize::from(self.0)
    }

    fn size(self) -> usize {
        self.index() / USES / 2
    }
}

fn age_of(span: Nanos) -> usize {
    ((span.0 / QUARTER + 1).ilog2() as usize).min(AGES - 1)
}

/// Seconds from the making of an object, or its last use, to the beginning of each age, and to the end of the last.
const BEGINS: [f64; AGES + 1] = {
    let mut begins = [0.0; AGES + 1];
    let mut age = 0;
    while age <= AGES {
        begins[age] = ((1_u64 << age) - 1) as f64 / 4.0;
        age += 1;
    }
    begins
};

fn end_of(age: usize) -> f64 {
    BEGINS[age + 1]
}

fn width(age: usize) -> f64 {
    (1_u64 << age) as f64 / 4.0
}

/// What was seen at one age.
#[derive(Clone, Copy, Default)]
struct Tally {
    /// Object-seconds.
    seconds: f64,
    uses: f64,
    /// Head time of these uses.
    saved: f64,
    deaths: f64,
}

impl Tally {
    fn fade(&mut self, keep: f64) {
        self.seconds *= keep;
        self.uses *= keep;
        self.saved *= keep;
        self.deaths *= keep;
    }

    fn add(&mut self, other: &Tally) {
        self.seconds += other.seconds;
        self.uses += other.uses;
        self.saved += other.saved;
        self.deaths += other.deaths;
    }
}

/// Head time saved, and seconds of stay for it.
#[derive(Clone, Copy, Default)]
struct Stay {
    saved: f64,
    seconds: f64,
}

/// Some 60 KiB, whatever is tracked.
pub(super) struct Outlook {
    of: Vec<[Tally; AGES]>,
    /// Deaths by age since the making, of objects not yet written down, by size.
    dirty: [[Tally; AGES]; SIZES],
    /// Head time saved per second of stay.
    index: Vec<[f64; AGES]>,
    odds: Vec<[Odds; AGES]>,
    /// The same for the flush that an early death spares, as a share of its cost.
    spared: [[f64; AGES]; SIZES],
    due: Nanos,
    noted: u32,
    learn_at: u32,
}

impl Outlook {
    pub(super) fn new() -> Self {
        let mut outlook = Self {
            of: vec![[Tally::default(); AGES]; CLASSES],
            dirty: [[Tally::default(); AGES]; SIZES],
            index: vec![[0.0; AGES]; CLASSES],
            odds: vec![[Odds::default(); AGES]; CLASSES],
            spared: [[0.0; AGES]; SIZES],
            due: Nanos::from_secs(120),
            noted: 0,
            learn_at: 32,
        };
        outlook.learn();
        outlook
    }

    /// Tells how long dirty data may stay dirty.
    pub(super) fn due(&mut self, due: Nanos) {
        self.due = due;
    }

    /// An object of `class` went from one age to a later one without being used.
    pub(super) fn passed(&mut self, class: Class, from: Nanos, to: Nanos) {
        pass(&mut self.of[class.index()], from, to);
    }

    /// An object of `class` was used at that age; a use that the cache serves saves so many seconds.
    pub(super) fn used(&mut self, class: Class, age: Nanos, saves: f64) {
        let tally = &mut self.of[class.index()][age_of(age)];
        tally.uses += 1.0;
        tally.saved += saves;
        self.note();
    }

    pub(super) fn died(&mut self, class: Class, age: Nanos) {
        self.of[class.index()][age_of(age)].deaths += 1.0;
        self.note();
    }

    /// A new object lived that long, at least; `died`: and was deleted then.
    pub(super) fn lived(&mut self, class: Class, age: Nanos, died: bool) {
        let tallies = &mut self.dirty[class.size()];
        pass(tallies, Nanos(0), age);
        tallies[age_of(age)].deaths += f64::from(u8::from(died));
    }

    fn note(&mut self) {
        self.noted += 1;
        if self.noted >= self.learn_at {
            // More rarely as more is known: a lesson costs as much as a hundred accesses.
            self.learn_at = self.noted.saturating_add((self.noted / 8).clamp(32, 4096));
            self.learn();
        }
    }

    /// What was learned so far counts for less.
    pub(super) fn fade(&mut self, keep: f64) {
        let all = self.of.iter_mut().chain(&mut self.dirty);
        all.flatten().for_each(|tally| tally.fade(keep));
    }

    /// Head time that staying saves per second, at best.
    pub(super) fn rate(&self, class: Class, age: Nanos) -> f64 {
        self.index[class.index()][age_of(age)]
    }

    /// Flushes that staying dirty spares per second, at best.
    pub(super) fn spared(&self, class: Class, age: Nanos) -> f64 {
        self.spared[class.size()][age_of(age)]
    }

    /// Whether what an object of this age since its last use will save, less the price of its room per second, is `least`
    /// or more; as if it stayed in its class.
    pub(super) fn is_worth(&self, class: Class, age: Nanos, price: f64, least: f64) -> bool {
        if least <= 0.0 {
            // It may leave at once.
            return true;
        }
        let (mut alive, mut saved, mut seconds, mut again) = (1.0, 0.0, 0.0, 0.0);
        for odds in self.odds[class.index()].iter().skip(age_of(age)) {
            let used = alive * odds.used;
            saved += used * odds.saves;
            seconds += alive * odds.seconds;
            again += used;
            alive *= odds.stays;
            if (saved - price * seconds) / (1.0_f64 - again).max(0.01) >= least {
                return true;
            }
        }
        false
    }

    fn learn(&mut self) {
        // By uses alone: what a class of which little is known falls back to.
        let mut pooled = [[Tally::default(); AGES]; USES];
        for (class, tallies) in self.of.iter().enumerate() {
            for (sum, tally) in pooled[class % USES].iter_mut().zip(tallies) {
                sum.add(tally);
            }
        }
        for (class, odds) in self.odds.iter_mut().enumerate() {
            let (own, pooled) = (&self.of[class], &pooled[class % USES]);
            *odds = std::array::from_fn(|age| Odds::of(&own[age], &pooled[age], class % USES, age));
        }
        let mut follow = vec![Stay::default(); CLASSES];
        for round in 0..ROUNDS {
            let mut next = follow.clone();
            for class in 0..CLASSES {
                let then = follow[class + usize::from(class % USES + 1 < USES)];
                let odds = &self.odds[class];
                next[class] = best_stay(odds, 0, AGES, then);
                if round + 1 == ROUNDS {
                    for age in 0..AGES {
                        let stay = best_stay(odds, age, AGES, then);
                        self.index[class][age] = stay.saved / stay.seconds.max(1e-3);
                    }
                }
            }
            follow = next;
        }
        let due = self.due.as_secs_f64();
        let last = (0..AGES).find(|age| end_of(*age) >= due).unwrap_or(AGES);
        for size in 0..SIZES {
            let odds: [Odds; AGES] = std::array::from_fn(|age| {
                let tally = &self.dirty[size][age];
                let seconds = tally.seconds + TRUST * width(age);
                let rate = (tally.deaths + TRUST * 0.06) / seconds;
                Odds::new(rate, 0.0, 1.0, age)
            });
            for age in 0..AGES {
                let stay = best_stay(&odds, age, last.max(age), Stay::default());
                self.spared[size][age] = if age < last {
                    stay.saved / stay.seconds.max(1e-3)
                } else {
                    0.0
                };
            }
        }
    }
}

/// What becomes of an object at one age.
#[derive(Clone, Copy, Default)]
struct Odds {
    /// It is used, with this chance, and that saves so much.
    used: f64,
    saves: f64,
    /// It gets older, neither used nor deleted, with this chance.
    stays: f64,
    /// Seconds that it is at this age.
    seconds: f64,
}

impl Odds {
    /// From chances per second.
    fn new(used: f64, died: f64, saves: f64, age: usize) -> Self {
        let chance = (used + died) * width(age);
        let ends = chance / (1.0 + chance);
        Self {
            used: ends * used / (used + died).max(1e-12),
            saves,
            stays: 1.0 - ends,
            seconds: width(age) / (1.0 + chance),
        }
    }

    fn of(own: &Tally, pooled: &Tally, uses: usize, age: usize) -> Self {
        let width = width(age);
        let weight = TRUST * width;
        // Before anything is known: equally likely per doubling of the age, more so after more uses.
        let prior = 0.02 + 0.03 * uses as f64;
        let all = pooled.seconds + weight;
        let used = (pooled.uses + TRUST * prior) / all;
        let died = (pooled.deaths + TRUST * 0.02) / all;
        let saves = (pooled.saved + 0.012) / (pooled.uses + 1.0);
        let seconds = own.seconds + weight;
        Self::new(
            (own.uses + used * weight) / seconds,
            (own.deaths + died * weight) / seconds,
            (own.saved + saves) / (own.uses + 1.0),
            age,
        )
    }
}

/// The stay from `age` on, of any length, that saves most per second.
fn best_stay(odds: &[Odds; AGES], age: usize, end: usize, then: Stay) -> Stay {
    let (mut alive, mut sum, mut best) = (
        1.0,
        Stay::default(),
        Stay {
            saved: 0.0,
            seconds: 1e-3,
        },
    );
    for odds in odds.iter().take(end).skip(age) {
        let used = alive * odds.used;
        sum.saved += used * (odds.saves + then.saved);
        sum.seconds += alive * odds.seconds + used * then.seconds;
        alive *= odds.stays;
        if sum.saved * best.seconds > best.saved * sum.seconds {
            best = sum;
        }
    }
    best
}

/// Adds the time between two ages to all ages in between.
fn pass(tallies: &mut [Tally; AGES], from: Nanos, to: Nanos) {
    let first = age_of(from);
    let (from, to) = (from.as_secs_f64(), to.as_secs_f64());
    let spans = BEGINS.iter().zip(&BEGINS[1..]);
    for (tally, (begin, end)) in tallies.iter_mut().zip(spans).skip(first) {
        if *begin >= to {
            break;
        }
        tally.seconds += (to.min(*end) - from.max(*begin)).max(0.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ages_double_and_meet() {
        assert_eq!(age_of(Nanos(0)), 0);
        assert_eq!(age_of(Nanos(QUARTER)), 1);
        assert_eq!(age_of(Nanos::from_secs(1_000_000_000)), AGES - 1);
        for age in 0..AGES - 1 {
            assert_eq!(end_of(age), end_of(age + 1) - width(age + 1));
            assert_eq!(age_of(Nanos((end_of(age) * 1e9) as u64)), age + 1);
        }
    }

    #[test]
    fn a_class_that_is_used_again_is_worth_more_than_one_that_is_not() {
        let (often, never) = (Class::new(100, false, 1), Class::new(4 << 20, false, 1));
        let mut outlook = Outlook::new();
        let before = outlook.rate(often, Nanos(0));
        let (now, minute) = (Nanos(0), Nanos::from_secs(60));
        for _ in 0..256 {
            outlook.passed(often, now, Nanos::from_secs(1));
            outlook.used(often, Nanos::from_secs(1), 0.012);
            outlook.passed(never, now, minute);
        }
        assert!(outlook.rate(often, now) > before);
        assert!(outlook.rate(often, now) > 3.0 * outlook.rate(never, now));
        let levels = || (1..1_000_000).map(|us| f64::from(us) / 1e6);
        let worth = |class, price| {
            let pays = |least: &f64| outlook.is_worth(class, Nanos(0), price, *least);
            levels().take_while(pays).count()
        };
        assert!(worth(often, 0.0) > worth(never, 0.0));
        assert!(worth(often, 1.0) < worth(often, 0.0));
    }

    #[test]
    fn what_dies_young_is_worth_keeping_dirty_until_it_is_due() {
        let (log, other) = (Class::new(100, true, 0), Class::new(4 << 20, true, 0));
        let mut outlook = Outlook::new();
        for _ in 0..256 {
            outlook.lived(log, Nanos::from_secs(10), true);
            outlook.lived(other, Nanos::from_secs(120), false);
            outlook.died(log, Nanos::from_secs(10));
        }
        let young = Nanos::from_secs(5);
        assert!(outlook.spared(log, young) > 5.0 * outlook.spared(other, young));
        assert_eq!(outlook.spared(log, Nanos::from_secs(300)), 0.0);
    }
}
