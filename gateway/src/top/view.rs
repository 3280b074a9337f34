//! What `tierdav top` shows: the page's content as lines. Pure: a status and a size go in, lines come out.

use super::text::{Line, Style};
use crate::admin::Status;
use crate::admin::words;
use crate::config::{human_micros, human_size};
use crate::objects::{Amount, Cell, HotFile};

/// The room there is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Size {
    /// Characters of a line.
    pub columns: usize,
    /// Lines.
    pub rows: usize,
}

/// Cells of a file's strip of objects; half as many in a narrow terminal.
const STRIP: usize = 24;
/// From here on the table of hot files has all its columns.
const WIDE_COLUMNS: usize = 100;
/// From here on there are empty lines between the parts.
const SPACIOUS_ROWS: usize = 34;
/// Characters of the bar that shows how full the cache tier is.
const BAR: usize = 20;
/// Hot files and moves that are shown at least.
const LISTED_MIN: usize = 3;

/// All lines. With a `size` the lists are shortened so that everything fits, if it can; what then is still too much is
/// left out at the end.
pub fn view(status: &Status, size: Option<Size>) -> Vec<Line> {
    let mut lines = head(status);
    lines.extend(tiers(status));
    lines.extend(places(status));
    let mut tail = [clients(status), policy(status)].concat();
    let (mut hot_rows, mut move_rows) = (status.hot.len(), status.tiers.recent.len());
    let dense = size.is_some_and(|s| s.rows < SPACIOUS_ROWS);
    if dense {
        lines.retain(|line| !line.is_empty());
        tail.retain(|line| !line.is_empty());
    }
    if let Some(size) = size {
        // Two headings, perhaps with an empty line above each, and the table's head.
        let fixed = lines.len() + tail.len() + if dense { 3 } else { 5 };
        let room = size.rows.saturating_sub(fixed).max(2 * LISTED_MIN);
        let half = (room / 2).max(LISTED_MIN);
        let hot_most = room.saturating_sub(move_rows.clamp(1, half));
        hot_rows = hot_rows.min(hot_most);
        move_rows = move_rows.min(room.saturating_sub(hot_rows.max(1)));
    }
    let wide = size.is_none_or(|s| s.columns >= WIDE_COLUMNS);
    let lists = [hot(status, hot_rows, wide), moves(status, move_rows)].concat();
    lines.extend(lists.into_iter().filter(|line| !(dense && line.is_empty())));
    lines.extend(tail);
    if let Some(size) = size {
        lines.truncate(size.rows);
    }
    lines
}

fn heading(text: &str) -> Line {
    Line::new().add(Style::Strong, text)
}

/// The first lines: who, since when, what clients do.
fn head(status: &Status) -> Vec<Line> {
    let ready = match status.ready {
        true => (Style::Good, "ready"),
        false => (Style::Bad, "not ready"),
    };
    let (minute, hour) = (&status.last_minute, &status.last_hour);
    let rate = |bytes| human_size(minute.rate(bytes) as u64) + "/s";
    let span = |s: &crate::metrics::Span| {
        let (median, most) = (
            words::micros_or_none(s.count, s.p50_us),
            words::micros_or_none(s.count, s.p99_us),
        );
        format!("{median}, 99 % within {most}")
    };
    let failed = if hour.errors > 0 {
        Style::Bad
    } else {
        Style::Faint
    };
    let cpu = minute.cpu_s / minute.seconds.max(0.001);
    vec![
        Line::new()
            .add(Style::Strong, format!("tierdav {} ", status.version))
            .add(ready.0, ready.1)
            .plain(format!(
                "  {}, up {}",
                status.serving,
                words::seconds(status.uptime_s)
            )),
        Line::new()
            .plain(format!(
                "requests  {:.1} per s, {} under way   sent {}   received {}   ",
                minute.rate(minute.requests),
                status.in_flight,
                rate(minute.sent_bytes),
                rate(minute.received_bytes)
            ))
            .add(
                failed,
                format!("{} of {} failed in 1 h", hour.errors, hour.requests),
            ),
        Line::new()
            .plain(format!(
                "GET       {}   PUT {}   ",
                span(&minute.get),
                span(&minute.put)
            ))
            .faint("last minute"),
        Line::new().plain(format!(
            "process   {} resident, {cpu:.2} CPU cores, {} open files",
            human_size(status.process.resident_bytes),
            status.process.open_fds
        )),
    ]
}

fn tiers(status: &Status) -> Vec<Line> {
    let t = &status.tiers;
    if !t.enabled {
        return vec![Line::new(), Line::new().plain("no cache tier")];
    }
    let minute = &status.last_minute;
    let share = t.used_bytes as f64 / t.capacity_bytes.max(1) as f64;
    let filled = ((share * BAR as f64).round() as usize).min(BAR);
    let amount = |a: &Amount| format!("{} in {} objects", human_size(a.bytes), a.objects);
    let dirty = match t.dirty.objects {
        0 => Line::new().plain("dirty     nothing waits to be flushed"),
        _ => Line::new()
            .plain("dirty     ")
            .add(Style::Care, amount(&t.dirty))
            .plain(format!(
                ", the oldest for {}",
                words::seconds(t.oldest_dirty_s)
            )),
    };
    let trouble = t.failed_moves + t.damaged_objects + t.damage_found > 0;
    let mut lines = vec![
        Line::new(),
        hits(status),
        Line::new()
            .plain("cache     [")
            .add(Style::Good, "#".repeat(filled))
            .faint(".".repeat(BAR - filled))
            .plain(format!(
                "] {} of {}, clean {}",
                human_size(t.used_bytes),
                human_size(t.capacity_bytes),
                amount(&t.clean)
            )),
        dirty,
        Line::new()
            .plain(format!(
                "reads     cache {}, backing {}   ",
                words::micros_or_none(minute.cache_read.count, minute.cache_read.p50_us),
                words::micros_or_none(minute.backing_read.count, minute.backing_read.p50_us)
            ))
            .faint("median time of an object, last minute"),
        Line::new().plain(format!(
            "waiting   {} to promote, {} to flush, {} to evict   moved: promoted {}, flushed {}, evicted {}",
            t.queued_promotions,
            t.queued_flushes,
            t.queued_evictions,
            human_size(t.promoted.bytes),
            human_size(t.flushed.bytes),
            human_size(t.evicted.bytes)
        )),
    ];
    if trouble {
        lines.push(Line::new().add(
            Style::Bad,
            format!(
                "trouble   {} moves failed, {} objects are damaged, {} reads found damage: see the log",
                t.failed_moves, t.damaged_objects, t.damage_found
            ),
        ));
    }
    lines
}

fn hits(status: &Status) -> Line {
    let of = |s: &crate::metrics::Sample| {
        let (bytes, reads) = (s.byte_hit_ratio()?, s.hit_ratio()?);
        let percent = |share| words::percent(Some(share));
        Some((percent(bytes), percent(reads)))
    };
    let line = Line::new().plain("hit ratio ");
    let line = match of(&status.last_minute) {
        Some((bytes, reads)) => line
            .add(Style::Strong, bytes)
            .plain(format!(" of bytes, {reads} of reads   "))
            .faint("last minute"),
        None => line.plain("no reads in the last minute"),
    };
    match of(&status.last_hour) {
        Some((bytes, reads)) => line.faint(format!("; last hour {bytes} and {reads}")),
        None => line,
    }
}

fn places(status: &Status) -> Vec<Line> {
    let line = |place: &crate::admin::Place| {
        let line = Line::new().plain(format!("{:<9} {} {}", place.role, place.kind, place.name));
        match (&place.trouble, place.available_bytes, place.size_bytes) {
            (Some(trouble), ..) => line.plain("  ").add(Style::Bad, trouble),
            (None, Some(free), Some(size)) => line.faint(format!(
                "  {} of {} free",
                human_size(free),
                human_size(size)
            )),
            (None, ..) => line.faint("  not asked yet"),
        }
    };
    let mut lines = vec![Line::new()];
    lines.extend(status.places.iter().map(line));
    lines
}

fn hot(status: &Status, rows: usize, wide: bool) -> Vec<Line> {
    let mut lines = vec![
        Line::new(),
        heading("hot files ")
            .faint("  objects: ")
            .add(Style::Good, "c clean ")
            .add(Style::Care, "d dirty ")
            .add(Style::Cold, ". backing tier only ")
            .add(Style::Moving, "m moving"),
    ];
    if status.hot.is_empty() {
        lines.push(Line::new().faint("no file has been read or written since the start"));
        return lines;
    }
    let head = format!(
        "{:>7} {:>10} {:>9} {:>9} ",
        "uses", "size", "backing", "cache"
    );
    let head = match wide {
        true => format!("{head}{:>9}  {:<STRIP$}  file", "last", "objects"),
        false => format!("{head} {:<1$}  file", "objects", STRIP / 2),
    };
    lines.push(Line::new().faint(head));
    let files = status.hot.iter().take(rows);
    lines.extend(files.map(|file| hot_line(file, wide)));
    lines
}

fn hot_line(file: &HotFile, wide: bool) -> Line {
    let mean = |us: Option<u64>| us.map_or_else(|| "none".to_owned(), human_micros);
    let size = match file.path {
        Some(_) => human_size(file.bytes),
        None => "unknown".to_owned(),
    };
    let mut line = Line::new().plain(format!(
        "{:>7.0} {size:>10} {:>9} {:>9} ",
        file.recent_uses,
        mean(file.evidence.backing_us),
        mean(file.evidence.cache_us),
    ));
    let most = if wide { STRIP } else { STRIP / 2 };
    line = match wide {
        true => line.plain(format!("{:>9}  ", words::seconds(file.idle_s))),
        false => line.plain(" "),
    };
    let strip = strip(&file.cells, most);
    let pad = most.saturating_sub(strip.len());
    for (style, letter) in strip {
        line = line.add(style, letter);
    }
    let name = words::name_of(file.path.as_deref(), file.file);
    line.plain(format!("{:pad$}  {name}", ""))
}

/// A file's objects in order, in at most `most` cells; the state that asks for most attention stands for its cell.
fn strip(cells: &[Cell], most: usize) -> Vec<(Style, &'static str)> {
    let each = cells.len().div_ceil(most).max(1);
    let part = |part: &[Cell]| {
        let any = |count: fn(&Cell) -> u64| part.iter().any(|c| count(c) > 0);
        if any(|c| c.objects.moving) {
            (Style::Moving, "m")
        } else if any(|c| c.objects.dirty) {
            (Style::Care, "d")
        } else if any(|c| c.objects.clean) {
            (Style::Good, "c")
        } else {
            (Style::Cold, ".")
        }
    };
    cells.chunks(each).map(part).collect()
}

fn moves(status: &Status, rows: usize) -> Vec<Line> {
    let mut lines = vec![Line::new(), heading("last moves, and why")];
    if status.tiers.recent.is_empty() {
        lines.push(Line::new().faint("nothing has moved yet"));
    }
    for action in status.tiers.recent.iter().rev().take(rows) {
        let style = if action.ok { Style::Plain } else { Style::Bad };
        lines.push(
            Line::new()
                .faint(format!(
                    "{:>9} ago  ",
                    words::seconds(words::age_s(status, action))
                ))
                .add(style, words::what(action))
                .faint(format!(": {}", words::why(action, &status.last_hour))),
        );
    }
    lines
}

fn clients(status: &Status) -> Vec<Line> {
    let of = |c: &crate::metrics::Client| format!("{} ({})", c.address, c.connections);
    let mut most: Vec<String> = status.clients.iter().map(of).collect();
    if status.client_addresses > most.len() {
        most.push("…".into());
    }
    vec![
        Line::new(),
        heading("clients   ").plain(format!(
            "{} connections from {} addresses, {} locks   {}",
            status.connections,
            status.client_addresses,
            status.locks,
            most.join(", ")
        )),
    ]
}

fn policy(status: &Status) -> Vec<Line> {
    let settings = status.policy.parameters.iter();
    let settings: Vec<String> = settings
        .map(|s| format!("{} {}", s.name, s.value))
        .collect();
    vec![
        heading("policy    ")
            .plain(status.policy.decider())
            .faint(format!("   {}", settings.join(", "))),
    ]
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;
    use crate::objects::HotObjects;

    fn cell(clean: u64, dirty: u64, cold: u64) -> Cell {
        Cell {
            objects: HotObjects {
                cold,
                clean,
                dirty,
                moving: 0,
            },
            uses: 0.0,
        }
    }

    #[test]
    fn a_strip_shows_the_state_that_matters_most_in_each_cell() {
        let letters = |cells: &[Cell]| strip(cells, STRIP).iter().map(|s| s.1).collect::<String>();
        assert_eq!(letters(&[]), "");
        let cells = [cell(1, 0, 0), cell(1, 1, 9), cell(0, 0, 1), cell(1, 0, 1)];
        assert_eq!(letters(&cells), "cd.c");
        let many: Vec<Cell> = (0..48).map(|i| cell(0, u64::from(i == 47), 1)).collect();
        assert_eq!(letters(&many), format!("{}d", ".".repeat(23)));
    }
}
