//! Decides who does the next part of a shared load. Pure: what was measured comes in, a number comes out.
//!
//! Both sides take parts from one list. A side takes the largest part that it would have done before the other side
//! were through with everything that is left, by the rates measured so far: so the slow side ends with small parts, and
//! leaves the last ones to the fast side, as in list scheduling by longest processing time (Graham 1969) on machines
//! whose speeds are learned.

/// The two sides.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Side {
    /// Calls on a directory of this machine.
    Device,
    /// Requests to the server.
    Pod,
}

impl Side {
    /// Both.
    pub const ALL: [Side; 2] = [Side::Device, Side::Pod];

    /// The other one.
    pub fn other(self) -> Side {
        match self {
            Side::Device => Side::Pod,
            Side::Pod => Side::Device,
        }
    }
}

/// What a part costs, in what is known before it runs.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Cost {
    /// Operations.
    pub ops: f64,
    /// Bytes moved.
    pub bytes: f64,
}

/// Bytes that weigh as much as one operation where nothing is measured.
const OP_BYTES: f64 = 65_536.0;

impl Cost {
    /// One number for both.
    pub fn weight(self) -> f64 {
        self.ops + self.bytes / OP_BYTES
    }
}

/// How the load is shared.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Share {
    /// By measured rates, while it runs.
    Auto,
    /// This part of the whole weight is the device's.
    Fixed(f64),
}

impl std::str::FromStr for Share {
    type Err = String;
    fn from_str(text: &str) -> Result<Share, String> {
        match text.parse::<f64>() {
            _ if text == "auto" => Ok(Share::Auto),
            Ok(share) if (0.0..=1.0).contains(&share) => Ok(Share::Fixed(share)),
            _ => Err(format!(
                "`{text}` is neither `auto` nor a number from 0 to 1"
            )),
        }
    }
}

/// Seconds of a part on one side, learned: `per_op * ops + per_byte * bytes` by least squares.
#[derive(Debug, Clone, Default)]
struct Rate {
    count: u64,
    xx: f64,
    xy: f64,
    yy: f64,
    xt: f64,
    yt: f64,
    wt: f64,
    ww: f64,
}

/// Older parts count this much less for each newer one: rates change while a load runs.
const FORGET: f64 = 0.99;
/// Weight of the assumption that an operation costs as much as [`OP_BYTES`].
const PRIOR: f64 = 0.05;

impl Rate {
    fn learn(&mut self, cost: Cost, seconds: f64) {
        let (x, y, w) = (cost.ops, cost.bytes / OP_BYTES, cost.weight());
        for sum in [
            &mut self.xx,
            &mut self.xy,
            &mut self.yy,
            &mut self.xt,
            &mut self.yt,
            &mut self.wt,
            &mut self.ww,
        ] {
            *sum *= FORGET;
        }
        self.count += 1;
        // Divided by the weight, so that a few large parts do not hide what an operation costs.
        let scale = 1.0 / w.max(1.0);
        self.xx += x * x * scale;
        self.xy += x * y * scale;
        self.yy += y * y * scale;
        self.xt += x * seconds * scale;
        self.yt += y * seconds * scale;
        self.wt += w * seconds * scale;
        self.ww += w * w * scale;
    }

    fn seconds(&self, cost: Cost) -> Option<f64> {
        if self.count == 0 || self.ww <= 0.0 {
            return None;
        }
        let flat = self.wt / self.ww;
        let ridge = PRIOR * self.ww / 2.0 + f64::EPSILON;
        let (xx, yy) = (self.xx + ridge, self.yy + ridge);
        let (xt, yt) = (self.xt + ridge * flat, self.yt + ridge * flat);
        let det = xx * yy - self.xy * self.xy;
        let (mut a, mut b) = (
            (xt * yy - yt * self.xy) / det,
            (yt * xx - xt * self.xy) / det,
        );
        if a < 0.0 {
            (a, b) = (0.0, yt / yy);
        } else if b < 0.0 {
            (a, b) = (xt / xx, 0.0);
        }
        Some(a * cost.ops + b * cost.bytes / OP_BYTES)
    }
}

#[derive(Debug, Default)]
struct Running {
    rate: Rate,
    workers: usize,
    /// Parts under way and when they began, in seconds.
    parts: Vec<(usize, f64)>,
    /// Parts kept for this side by a fixed share.
    own: Vec<usize>,
}

/// What a worker is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Next {
    /// Do this part.
    Part(usize),
    /// The other side would be faster; ask again when a part has ended.
    Wait,
    /// Nothing is left for this side.
    Done,
}

/// What is left, who does what, and how fast they are.
#[derive(Debug)]
pub struct Balance {
    costs: Vec<Cost>,
    /// Parts that nobody has, smallest first.
    left: Vec<usize>,
    sides: [Running; 2],
}

impl Balance {
    /// All parts are still to be done, by so many workers on the device and for the pod.
    pub fn new(costs: Vec<Cost>, share: Share, workers: [usize; 2]) -> Balance {
        let mut left: Vec<usize> = (0..costs.len()).collect();
        left.sort_by(|a, b| {
            costs[*a]
                .weight()
                .total_cmp(&costs[*b].weight())
                .then(a.cmp(b))
        });
        let mut sides = workers.map(|workers| Running {
            workers,
            ..Running::default()
        });
        if let Share::Fixed(share) = share {
            let mut given = [0.0, 0.0];
            // Largest first, each to the side that is further from its share.
            for part in std::mem::take(&mut left).into_iter().rev() {
                let lag = |side: usize, share: f64| share * (given[0] + given[1]) - given[side];
                let device = share > 0.0 && (share >= 1.0 || lag(0, share) >= lag(1, 1.0 - share));
                let side = usize::from(!device);
                given[side] += costs[part].weight();
                sides[side].own.insert(0, part);
            }
        }
        Balance { costs, left, sides }
    }

    /// What a free worker of `side` should do at `now` (seconds).
    pub fn next(&mut self, side: Side, now: f64) -> Next {
        if let Some(part) = self.sides[side as usize].own.pop() {
            self.sides[side as usize].parts.push((part, now));
            return Next::Part(part);
        }
        if self.left.is_empty() {
            return Next::Done;
        }
        let Some(index) = self.choice(side, now) else {
            return Next::Wait;
        };
        let part = self.left.remove(index);
        self.sides[side as usize].parts.push((part, now));
        Next::Part(part)
    }

    fn choice(&self, side: Side, now: f64) -> Option<usize> {
        let (mine, other) = (
            &self.sides[side as usize],
            &self.sides[side.other() as usize],
        );
        let seconds = |running: &Running, part: usize| running.rate.seconds(self.costs[part]);
        let last = self.left.len() - 1;
        if other.workers == 0 {
            return Some(last);
        }
        if mine.rate.count == 0 || other.rate.count == 0 {
            // Small parts first: they tell soon how fast the sides are. Who knows its rate goes on in the middle.
            return Some(if mine.rate.count == 0 { 0 } else { last / 2 });
        }
        let rest = |&(part, began): &(usize, f64)| {
            (seconds(other, part).unwrap_or(0.0) - (now - began)).max(0.0)
        };
        let under_way: f64 = other.parts.iter().map(rest).sum();
        let soonest = if other.parts.len() < other.workers {
            0.0
        } else {
            other.parts.iter().map(rest).fold(f64::INFINITY, f64::min)
        };
        let all: f64 = self.left.iter().filter_map(|p| seconds(other, *p)).sum();
        let through = (under_way + all) / other.workers as f64;
        let nobody_works = self.sides.iter().all(|s| s.parts.is_empty());
        (0..=last)
            .rev()
            .find(|&i| {
                let part = self.left[i];
                let (here, there) = (seconds(mine, part), seconds(other, part));
                here.zip(there)
                    .is_none_or(|(here, there)| here <= through.max(soonest + there))
            })
            .or(nobody_works.then_some(0))
    }

    /// A part has ended on `side`.
    pub fn ended(&mut self, side: Side, part: usize, now: f64) {
        let running = &mut self.sides[side as usize];
        if let Some(at) = running.parts.iter().position(|(p, _)| *p == part) {
            let (_, began) = running.parts.swap_remove(at);
            running
                .rate
                .learn(self.costs[part], (now - began).max(1e-9));
        }
    }
}

#[cfg(test)]
#[path = "balance_tests.rs"]
mod tests;
