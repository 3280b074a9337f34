//! `tierdav top`: what the page shows, in a terminal.
//!
//! On a terminal it redraws in place until `q` or Ctrl-C; elsewhere it prints blocks of plain lines.

mod screen;
mod text;
mod view;

use std::io::{self, Read, Write};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use anyhow::Context;
use http::Method;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{Notify, mpsc};

use crate::admin::{Status, client};
use screen::Screen;
use text::{Line, Style};
use view::view;

/// What to watch, and how.
#[derive(Debug, Clone)]
pub struct Top {
    /// The running server's admin address.
    pub admin: String,
    /// Between two looks.
    pub interval: Duration,
    /// One look, as plain lines.
    pub once: bool,
}

/// Watches until told to stop.
///
/// # Errors
/// No server answers at first, or `once`. Later it may be away: that is shown, and it is asked again.
pub async fn run(top: &Top) -> anyhow::Result<()> {
    let first = ask(&top.admin).await?;
    if top.once {
        return plain(&first).map_err(Into::into);
    }
    match Screen::take() {
        Some(screen) => watch(top, first, screen).await,
        None => print(top, first).await,
    }
}

async fn ask(admin: &str) -> anyhow::Result<Status> {
    let asked = client::ask(admin, Method::GET, "/.tierdav/status");
    let body = client::soon(admin, asked).await?;
    serde_json::from_slice(&body).context("the status makes no sense: is it of another version?")
}

/// One block.
fn plain(status: &Status) -> io::Result<()> {
    let mut block = httpdate::fmt_http_date(SystemTime::now()) + "\n";
    for line in view(status, None) {
        block += &line.text();
        block.push('\n');
    }
    let mut out = io::stdout().lock();
    out.write_all(block.as_bytes())?;
    out.flush()
}

/// Blocks, until nobody reads them any more.
async fn print(top: &Top, first: Status) -> anyhow::Result<()> {
    let mut next = Ok(first);
    loop {
        let printed = match next {
            Ok(status) => plain(&status).and_then(|()| io::stdout().write_all(b"\n")),
            Err(error) => {
                eprintln!("tierdav: {error:#}");
                Ok(())
            }
        };
        match printed {
            Err(e) if e.kind() == io::ErrorKind::BrokenPipe => return Ok(()),
            printed => printed?,
        }
        tokio::time::sleep(top.interval).await;
        next = ask(&top.admin).await;
    }
}

/// Redraws in place.
async fn watch(top: &Top, first: Status, mut screen: Screen) -> anyhow::Result<()> {
    let (mut interrupt, mut terminate, mut hangup) = (
        signal(SignalKind::interrupt())?,
        signal(SignalKind::terminate())?,
        signal(SignalKind::hangup())?,
    );
    let mut resized = signal(SignalKind::window_change())?;
    let stop = rustix::process::Signal::TSTP.as_raw();
    let mut suspended = signal(SignalKind::from_raw(stop))?;
    let mut keys = keyboard();
    let now = Arc::new(Notify::new());
    let mut answers = looks(top.clone(), Arc::clone(&now));

    let (mut status, mut trouble) = (first, None);
    loop {
        let lines = view(&status, Some(screen.size()));
        screen.draw(&lines, &foot(top, trouble.as_deref()))?;
        tokio::select! {
            _ = interrupt.recv() => return Ok(()),
            _ = terminate.recv() => return Ok(()),
            _ = hangup.recv() => return Ok(()),
            _ = resized.recv() => {}
            _ = suspended.recv() => {
                screen.leave();
                // Goes on when the shell continues it.
                let own = rustix::process::getpid();
                rustix::process::kill_process(own, rustix::process::Signal::STOP)?;
                screen.enter();
            }
            Some(key) = keys.recv() => match key {
                b'q' | b'Q' => return Ok(()),
                _ => now.notify_one(),
            },
            Some(answer) = answers.recv() => match answer {
                Ok(answer) => (status, trouble) = (answer, None),
                Err(error) => trouble = Some(format!("{error:#}")),
            },
        }
    }
}

fn foot(top: &Top, trouble: Option<&str>) -> Line {
    match trouble {
        Some(trouble) => Line::new()
            .add(Style::Bad, format!("as it was; {trouble}"))
            .faint("; asked again   q quits"),
        None => Line::new().faint(format!(
            "every {:?} from {}   q quits, any other key looks now",
            top.interval, top.admin
        )),
    }
}

/// Looks at the server again and again, at once when `now` rings.
fn looks(top: Top, now: Arc<Notify>) -> mpsc::Receiver<anyhow::Result<Status>> {
    let (send, receive) = mpsc::channel(1);
    tokio::spawn(async move {
        loop {
            let _ = tokio::time::timeout(top.interval, now.notified()).await;
            if send.send(ask(&top.admin).await).await.is_err() {
                return;
            }
        }
    });
    receive
}

/// The keys that are pressed. Its thread ends with the process: nothing interrupts a read.
fn keyboard() -> mpsc::Receiver<u8> {
    let (send, receive) = mpsc::channel(16);
    let read = move || {
        let mut key = [0];
        while io::stdin().read(&mut key).is_ok_and(|n| n == 1) {
            if send.blocking_send(key[0]).is_err() {
                return;
            }
        }
    };
    // Without a keyboard Ctrl-C is left.
    let _ = std::thread::Builder::new()
        .name("keyboard".into())
        .spawn(read);
    receive
}
