#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
use super::*;
use proptest::prelude::*;

/// Plays a run: each side takes `seconds(side, part, now)` for a part. Gives the makespan and each side's parts.
fn play(
    costs: &[Cost],
    share: Share,
    workers: [usize; 2],
    seconds: impl Fn(Side, usize, f64) -> f64,
) -> (f64, [Vec<usize>; 2]) {
    let mut balance = Balance::new(costs.to_vec(), share, workers);
    let mut done = [Vec::new(), Vec::new()];
    // (end, side, part)
    let mut under_way: Vec<(f64, Side, usize)> = Vec::new();
    let mut free = workers;
    let mut now = 0.0;
    loop {
        for side in Side::ALL {
            while free[side as usize] > 0 {
                let Next::Part(part) = balance.next(side, now) else {
                    break;
                };
                free[side as usize] -= 1;
                done[side as usize].push(part);
                under_way.push((now + seconds(side, part, now), side, part));
            }
        }
        let first = (0..under_way.len()).min_by(|a, b| under_way[*a].0.total_cmp(&under_way[*b].0));
        let Some(first) = first else { break };
        let (end, side, part) = under_way.swap_remove(first);
        now = end;
        free[side as usize] += 1;
        balance.ended(side, part, now);
    }
    (now, done)
}

fn parts(n: usize) -> Vec<Cost> {
    (0..n)
        .map(|i| Cost {
            ops: 10.0 + (i * 7 % 90) as f64,
            bytes: ((i * i * 7919) % 9_000_000) as f64,
        })
        .collect()
}

fn linear(costs: &[Cost], device: [f64; 2], pod: [f64; 2]) -> impl Fn(Side, usize, f64) -> f64 {
    move |side, part, _| {
        let [op, byte] = if side == Side::Device { device } else { pod };
        costs[part].ops * op + costs[part].bytes * byte
    }
}

#[test]
fn learned_rates_come_within_three_percent_of_a_perfect_division() {
    let costs = parts(400);
    for (device, pod) in [
        ([1e-3, 2e-8], [1e-3, 2e-8]),
        ([10e-3, 2e-7], [1e-3, 2e-8]),
        // The device is fast at operations and slow at bytes: the parts differ in where they belong.
        ([1e-4, 2e-7], [2e-3, 1e-8]),
    ] {
        let seconds = linear(&costs, device, pod);
        let alone = |side| (0..costs.len()).map(|p| seconds(side, p, 0.0)).sum::<f64>();
        let (d, p) = (alone(Side::Device), alone(Side::Pod));
        let perfect = d * p / (d + p);
        let (span, done) = play(&costs, Share::Auto, [1, 1], &seconds);
        assert!(span <= perfect * 1.03, "{span} against {perfect}");
        assert_eq!(done[0].len() + done[1].len(), costs.len());
    }
}

#[test]
fn one_large_part_is_not_left_to_the_slow_side_at_the_end() {
    let mut costs = parts(40);
    costs.push(Cost {
        ops: 100.0,
        bytes: 400e6,
    });
    let seconds = linear(&costs, [1e-2, 1e-6], [1e-3, 1e-7]);
    let (_, done) = play(&costs, Share::Auto, [1, 1], &seconds);
    assert!(done[1].contains(&40));
}

#[test]
fn a_side_that_becomes_slow_gets_less_of_what_is_left() {
    let costs = parts(400);
    let even = linear(&costs, [1e-3, 2e-8], [1e-3, 2e-8]);
    let whole: f64 = (0..costs.len()).map(|p| even(Side::Pod, p, 0.0)).sum();
    let slows = |side, part, now: f64| {
        let factor = if side == Side::Device && now > whole / 8.0 {
            10.0
        } else {
            1.0
        };
        even(side, part, now) * factor
    };
    let (span, _) = play(&costs, Share::Auto, [1, 1], slows);
    // Perfect: an eighth done by both, then 10/11 of the rest by the pod alone.
    let perfect = whole / 8.0 + (whole * 0.75) * 10.0 / 11.0;
    assert!(span <= perfect * 1.1, "{span} against {perfect}");
}

#[test]
fn fixed_shares_are_shares_of_the_weight() {
    let costs = parts(200);
    let seconds = linear(&costs, [1e-3, 2e-8], [1e-3, 2e-8]);
    let all: f64 = costs.iter().map(|c| c.weight()).sum();
    for share in [0.0, 0.25, 0.5, 1.0] {
        let (_, done) = play(&costs, Share::Fixed(share), [2, 2], &seconds);
        let device: f64 = done[0].iter().map(|p| costs[*p].weight()).sum();
        assert!(
            (device / all - share).abs() < 0.01,
            "{} for {share}",
            device / all
        );
        assert_eq!(done[0].len() + done[1].len(), costs.len());
    }
    assert!("1.5".parse::<Share>().is_err() && "auto".parse::<Share>() == Ok(Share::Auto));
}

proptest! {
    #[test]
    fn every_part_is_done_once_whatever_the_rates(
        shape in proptest::collection::vec((1_u32..1000, 0_u32..10_000_000), 0..60),
        rates in [1e-6..1.0_f64, 1e-10..1e-5_f64, 1e-6..1.0, 1e-10..1e-5],
        workers in [1_usize..4, 1..4],
    ) {
        let costs: Vec<Cost> = shape.iter().map(|(o, b)| Cost { ops: f64::from(*o), bytes: f64::from(*b) }).collect();
        let seconds = linear(&costs, [rates[0], rates[1]], [rates[2], rates[3]]);
        let (_, done) = play(&costs, Share::Auto, workers, seconds);
        let mut all: Vec<usize> = done.concat();
        all.sort_unstable();
        prop_assert_eq!(all, (0..costs.len()).collect::<Vec<_>>());
    }
}
