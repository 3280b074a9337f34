//! One run: both sides at once, each part carried out in order by one worker of one side.

use super::Part;
use super::balance::{Balance, Next, Share, Side};
use super::report::{Outcome, SideOutcome};
use crate::calls::{self, Calls};
use crate::client::{Connection, Target};
use crate::exchange::{Done, Failure, Shared, Verify};
use crate::plan::{Kind, Plan, Request};
use crate::replay;
use anyhow::Context;
use std::collections::HashSet;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;
use tokio::sync::Notify;
use tokio::task::JoinSet;

/// Messages kept.
const EXAMPLES: usize = 20;

/// The two places of a load.
#[derive(Debug, Clone)]
pub struct Sides {
    pub root: PathBuf,
    pub target: Target,
    /// Parts at once.
    pub workers: [usize; 2],
    pub seed: u64,
    pub verify: Verify,
}

/// What the workers of a run share.
struct Run {
    sides: Sides,
    parts: Arc<[Part]>,
    balance: Mutex<Balance>,
    ended: Notify,
    start: Instant,
}

impl Run {
    fn balance(&self) -> MutexGuard<'_, Balance> {
        self.balance.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn now(&self) -> f64 {
        self.start.elapsed().as_secs_f64()
    }
}

/// What one worker did.
#[derive(Default)]
struct Worker {
    outcome: SideOutcome,
    parts: Vec<usize>,
}

impl Worker {
    fn count(&mut self, done: Done) {
        self.outcome.operations += 1;
        self.outcome.bytes += done.bytes;
        if let Some(failure) = done.failure {
            let (Failure::Broken(text) | Failure::Status(text) | Failure::Content(text)) = failure;
            self.fail(text);
        }
    }

    fn fail(&mut self, text: String) {
        self.outcome.failures += 1;
        if self.outcome.examples.len() < EXAMPLES {
            self.outcome.examples.push(text);
        }
    }
}

/// Runs all parts, shared as `share` says, and removes what they left.
pub async fn run(sides: &Sides, parts: Arc<[Part]>, share: Share) -> anyhow::Result<Outcome> {
    crate::calls::raise_descriptor_limit();
    let name = match share {
        Share::Auto => "auto".to_string(),
        Share::Fixed(share) => format!("{share}"),
    };
    let mut sides = sides.clone();
    sides.root = sides.root.join(&name);
    sides.target.prefix = format!("{}/{name}", sides.target.prefix).into();
    let used = [share != Share::Fixed(0.0), share != Share::Fixed(1.0)];
    let mut begun = [false, false];
    for side in Side::ALL {
        if used[side as usize] {
            begun[side as usize] = true;
            if let Err(error) = set_up(&sides, &parts, side).await {
                // That is the error to report, not what is in the way of the cleaning.
                let _ = clean_up(&sides, begun).await;
                return Err(error);
            }
        }
    }
    let costs = parts.iter().map(|p| p.cost).collect();
    let workers = [0, 1].map(|side| if used[side] { sides.workers[side] } else { 0 });
    let run = Arc::new(Run {
        balance: Mutex::new(Balance::new(costs, share, workers)),
        sides,
        parts,
        ended: Notify::new(),
        start: Instant::now(),
    });
    let mut tasks = JoinSet::new();
    for side in Side::ALL {
        for _ in 0..workers[side as usize] {
            let run = run.clone();
            tasks.spawn(async move { (side, work(&run, side).await) });
        }
    }
    let mut totals: [Worker; 2] = Default::default();
    while let Some(joined) = tasks.join_next().await {
        let (side, worker) = joined.context("a worker ended early")?;
        let total = &mut totals[side as usize];
        total.outcome.add(worker.outcome);
        total.parts.extend(worker.parts);
    }
    if run.sides.verify == Verify::All {
        for side in Side::ALL {
            read_back(&run, side, &mut totals[side as usize]).await;
        }
    }
    clean_up(&run.sides, used).await?;
    let [device, pod] = totals.map(|mut total| {
        total.outcome.parts = total.parts.len() as u64;
        total.outcome
    });
    Ok(Outcome {
        share: name,
        makespan_us: device.through_us.max(pod.through_us),
        device,
        pod,
    })
}

/// Who carries out the requests of a part.
enum Hands {
    Device,
    Pod(Box<Connection>),
}

impl Hands {
    fn of(sides: &Sides, side: Side) -> Hands {
        match side {
            Side::Device => Hands::Device,
            Side::Pod => Hands::Pod(Box::new(Connection::new(sides.target.clone()))),
        }
    }

    /// Carries the requests out one after the other.
    async fn carry_out(
        &mut self,
        sides: &Sides,
        plan: &Arc<Plan>,
        requests: Vec<Request>,
    ) -> Vec<Done> {
        match self {
            Hands::Pod(connection) => {
                let (target, seed) = (sides.target.clone(), sides.seed);
                let shared = Arc::new(Shared::new(plan.clone(), target, seed, sides.verify));
                let mut all = Vec::with_capacity(requests.len());
                for request in &requests {
                    all.push(shared.exchange(connection, request).await);
                }
                all
            }
            Hands::Device => {
                let calls = Calls::new(plan.clone(), &sides.root, sides.seed, sides.verify);
                let blocking = tokio::task::spawn_blocking(move || {
                    let numbered = (0..).zip(&requests);
                    numbered
                        .map(|(index, request)| calls.call(index, request))
                        .collect()
                });
                blocking.await.unwrap_or_else(|e| {
                    let failure = Some(Failure::Broken(format!(
                        "the calls of a part ended early: {e}"
                    )));
                    vec![Done {
                        failure,
                        ..Done::default()
                    }]
                })
            }
        }
    }
}

async fn work(run: &Run, side: Side) -> Worker {
    let mut worker = Worker::default();
    let mut hands = Hands::of(&run.sides, side);
    loop {
        let ended = run.ended.notified();
        tokio::pin!(ended);
        // From here on no end of a part is missed.
        ended.as_mut().enable();
        let next = run.balance().next(side, run.now());
        let part = match next {
            Next::Part(part) => part,
            Next::Wait => {
                ended.await;
                continue;
            }
            Next::Done => return worker,
        };
        let plan = &run.parts[part].plans[side as usize];
        let requests = plan.requests.clone();
        let wrote = requests
            .iter()
            .any(|r| matches!(r.kind, Kind::Write | Kind::Truncate));
        for done in hands.carry_out(&run.sides, plan, requests).await {
            worker.count(done);
        }
        if side == Side::Device && wrote {
            let (root, plan) = (run.sides.root.clone(), plan.clone());
            let synced = tokio::task::spawn_blocking(move || sync(&root, &plan)).await;
            if let Ok(Err(text)) = synced {
                worker.fail(text);
            }
        }
        worker.parts.push(part);
        run.balance().ended(side, part, run.now());
        worker.outcome.through_us = crate::exchange::micros(run.start, Instant::now());
        run.ended.notify_waiters();
    }
}

/// What a PUT has promised when it is answered, the device must have done, too: the part's files are on the disk.
fn sync(root: &Path, plan: &Plan) -> Result<(), String> {
    for &(path, _) in &plan.remaining {
        let name = root.join(&*plan.paths[path as usize]);
        let synced = File::open(&name).and_then(|f| f.sync_all());
        synced.map_err(|e| format!("fsync {}: {e}", name.display()))?;
    }
    Ok(())
}

/// Makes the directories of all parts, and the files that existed before the trace: any side may get any part.
async fn set_up(sides: &Sides, parts: &[Part], side: Side) -> anyhow::Result<()> {
    match side {
        Side::Device => calls::make_root(&sides.root).map_err(anyhow::Error::msg)?,
        Side::Pod => replay::make_prefix(&sides.target)
            .await
            .map_err(anyhow::Error::msg)?,
    }
    let mut hands = Hands::of(sides, side);
    let mut made: HashSet<Arc<str>> = HashSet::new();
    for part in parts {
        let plan = &part.plans[side as usize];
        let requests = replay::existing_requests(plan, side == Side::Device);
        let new = requests.into_iter().filter(|request| {
            let is_dir = matches!(request.kind, Kind::Mkdir | Kind::Mkcol);
            !is_dir || made.insert(plan.paths[request.path as usize].clone())
        });
        for done in hands.carry_out(sides, plan, new.collect()).await {
            if let Some(Failure::Broken(text) | Failure::Status(text) | Failure::Content(text)) =
                done.failure
            {
                anyhow::bail!("set-up: {text}");
            }
        }
    }
    Ok(())
}

/// Compares what each side's parts left.
async fn read_back(run: &Run, side: Side, total: &mut Worker) {
    let mut hands = Hands::of(&run.sides, side);
    let (operations, bytes) = (total.outcome.operations, total.outcome.bytes);
    for part in total.parts.clone() {
        let plan = &run.parts[part].plans[side as usize];
        let requests = replay::remaining_requests(plan, side == Side::Device);
        for done in hands.carry_out(&run.sides, plan, requests).await {
            total.count(done);
        }
    }
    // The load is what is counted, not the looking after it.
    (total.outcome.operations, total.outcome.bytes) = (operations, bytes);
}

async fn clean_up(sides: &Sides, used: [bool; 2]) -> anyhow::Result<()> {
    if used[Side::Device as usize] {
        std::fs::remove_dir_all(&sides.root).with_context(|| sides.root.display().to_string())?;
    }
    if used[Side::Pod as usize] {
        replay::remove_prefix(&sides.target)
            .await
            .map_err(anyhow::Error::msg)?;
    }
    Ok(())
}
