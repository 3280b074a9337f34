//! `info` as a page with charts.

use super::{Histogram, Info, Interval, human, share};
use crate::page::{Axis, Chart, Page, Table, Unit};

impl Info {
    /// The page about the trace called `name`: one HTML file that needs nothing else.
    pub fn html(&self, name: &str) -> String {
        let mut page = Page::new(format!("{name}: {}", self.level));
        page.paragraph(&format!(
            "A trace of {}: {} in {}, by {} on {} paths.",
            self.level,
            Unit::Count.text(self.entries as f64) + " entries",
            Unit::Seconds.text(self.duration_us as f64 / 1e6),
            self.clients.join(", "),
            self.paths
        ));
        self.summary(&mut page);
        self.operations(&mut page);
        self.charts_over_time(&mut page);
        self.sizes_and_order(&mut page);
        self.lives(&mut page);
        self.hot_paths(&mut page);
        if self.unusable.lines > 0 {
            page.heading("Lines that could not be used")
                .paragraph(&format!("{} lines, for example:", self.unusable.lines));
            page.list(&self.unusable.examples);
        }
        page.html()
    }

    fn summary(&self, page: &mut Page) {
        let percent = |share: f64| format!("{:.1} %", share * 100.0);
        let mut table = Table::new(["", "reads", "writes"]);
        let pair = |sizes: [u64; 2]| format!("{} / {}", human(sizes[0]), human(sizes[1]));
        let all = self.read_bytes + self.written_bytes;
        for (name, read, written) in [
            ("bytes", human(self.read_bytes), human(self.written_bytes)),
            (
                "share of all bytes moved",
                percent(share(self.read_bytes, all)),
                percent(share(self.written_bytes, all)),
            ),
            (
                "size, median / 90 %",
                pair(self.read_size_bytes),
                pair(self.write_size_bytes),
            ),
            (
                "sequential, of accesses",
                percent(self.reads.sequential_share),
                percent(self.writes.sequential_share),
            ),
            (
                "sequential, of bytes",
                percent(self.reads.sequential_bytes_share),
                percent(self.writes.sequential_bytes_share),
            ),
        ] {
            table.row([name.into(), read, written]);
        }
        page.table("Reads and writes", &table);
        let mut table = Table::new(["", ""]);
        for (name, value) in [
            (
                "working set",
                format!(
                    "{} in {} pieces of 4 MiB",
                    human(self.working_set_bytes),
                    self.pieces
                ),
            ),
            ("pieces never read", percent(self.never_read_share)),
            ("reads of a piece read before", percent(self.reread_share)),
            (
                "reads of a piece written here",
                percent(self.read_after_write_share),
            ),
        ] {
            table.row([name.to_string(), value]);
        }
        page.table("Working set", &table);
    }

    fn operations(&self, page: &mut Page) {
        page.heading("Operations");
        page.bars(
            "How often",
            self.operations
                .iter()
                .map(|(op, i)| (op.name(), i.count as f64, i.count.to_string())),
        );
        let mut table = Table::new([
            "operation",
            "count",
            "failed",
            "bytes",
            "mean latency",
            "greatest latency",
        ]);
        for (op, i) in &self.operations {
            let time = |us: u64| Unit::Seconds.text(us as f64 / 1e6);
            table.row([
                op.name().to_string(),
                i.count.to_string(),
                i.failed.to_string(),
                human(i.bytes),
                time(i.latency_us_mean),
                time(i.latency_us_max),
            ]);
        }
        page.table("As recorded", &table);
    }

    /// Values of each interval, at its end.
    fn over(&self, value: impl Fn(&Interval) -> f64) -> Vec<(f64, f64)> {
        let seconds = self.over_time.interval_us as f64 / 1e6;
        let intervals = self.over_time.intervals.iter().enumerate();
        intervals
            .map(|(i, interval)| ((i + 1) as f64 * seconds, value(interval)))
            .collect()
    }

    fn charts_over_time(&self, page: &mut Page) {
        let seconds = self.over_time.interval_us as f64 / 1e6;
        let note = format!("In intervals of {}.", Unit::Seconds.text(seconds));
        let time = || Axis::linear("time since the first entry", Unit::Seconds);
        page.heading("Over time");
        page.chart(
            &Chart::new(
                "Bytes read and written",
                time(),
                Axis::linear("bytes a second", Unit::BytesPerSecond),
            )
            .note(note.as_str())
            .line("read", self.over(|i| i.read_bytes as f64 / seconds))
            .line("written", self.over(|i| i.written_bytes as f64 / seconds)),
        );
        page.chart(
            &Chart::new(
                "Operations",
                time(),
                Axis::linear("operations a second", Unit::PerSecond),
            )
            .note(note)
            .line("operations", self.over(|i| i.operations as f64 / seconds)),
        );
        page.chart(
            &Chart::new("Footprint", time(), Axis::linear("bytes", Unit::Bytes))
                .note("Touched: distinct bytes read or written so far. Living: bytes in files that the trace wrote and that still exist.")
                .line("touched", self.over(|i| i.touched_bytes as f64))
                .line("living", self.over(|i| i.living_bytes as f64)),
        );
    }

    fn sizes_and_order(&self, page: &mut Page) {
        page.heading("Sizes, gaps, reuse");
        page.chart(
            &Chart::new(
                "Size of one access",
                Axis::log("bytes", Unit::Bytes),
                Axis::linear("accesses", Unit::Count),
            )
            .note("Each pair of bars counts the sizes from one power of two to the next.")
            .bars("reads", bars(&self.reads.size_bytes, 1.0))
            .bars("writes", bars(&self.writes.size_bytes, 1.0)),
        );
        page.chart(
            &Chart::new(
                "Time between the starts of entries",
                Axis::log("time", Unit::Seconds),
                Axis::linear("entries", Unit::Count),
            )
            .note(format!(
                "{} entries start in the same microsecond as the one before.",
                zero(&self.gap_us)
            ))
            .bars("gaps", bars(&self.gap_us, 1e-6)),
        );
        page.chart(
            &Chart::new(
                "Reuse distance of 4 MiB pieces",
                Axis::log("bytes of other pieces used in between", Unit::Bytes),
                Axis::linear("share of the uses of pieces", Unit::Share).between(0.0, 1.0),
            )
            .note(format!(
                "What an LRU cache must hold to have the piece still: its hit ratio by its size. {} reads and {} writes are first uses.",
                self.reads.first_uses, self.writes.first_uses
            ))
            .step("reads", cumulative(&self.reads.reuse_bytes, self.reads.first_uses))
            .step("writes", cumulative(&self.writes.reuse_bytes, self.writes.first_uses)),
        );
    }

    fn lives(&self, page: &mut Page) {
        let lives = &self.lifetimes;
        page.heading("Lifetimes of files").paragraph(&format!(
            "{} files were made, {} of them deleted or replaced. Of {} written, {} ({:.1} %) were gone by the end.",
            lives.born,
            lives.died,
            human(self.written_bytes),
            human(lives.died_bytes),
            lives.died_bytes_share * 100.0
        ));
        page.chart(
            &Chart::new(
                "Time from making to deletion or replacement",
                Axis::log("lifetime", Unit::Seconds),
                Axis::linear("files", Unit::Count),
            )
            .bars("files", bars(&lives.lifetime_us, 1e-6)),
        );
    }

    fn hot_paths(&self, page: &mut Page) {
        page.heading("Hottest paths");
        page.bars(
            "Bytes read and written",
            self.hottest.iter().map(|hot| {
                let bytes = hot.read_bytes + hot.written_bytes;
                (&*hot.path, bytes as f64, human(bytes))
            }),
        );
        let mut table = Table::new(["path", "reads", "writes", "bytes read", "bytes written"]);
        for hot in &self.hottest {
            table.row([
                hot.path.to_string(),
                hot.reads.to_string(),
                hot.writes.to_string(),
                human(hot.read_bytes),
                human(hot.written_bytes),
            ]);
        }
        page.table("Counts", &table);
    }
}

/// Bars of a histogram whose values are multiples of `unit`. 0 has no place on a logarithmic axis.
fn bars(histogram: &Histogram, unit: f64) -> Vec<(f64, f64, f64)> {
    let buckets = histogram.buckets().filter(|b| b.from > 0);
    buckets
        .map(|b| (b.from as f64 * unit, b.below as f64 * unit, b.count as f64))
        .collect()
}

fn zero(histogram: &Histogram) -> u64 {
    histogram
        .buckets()
        .find(|b| b.from == 0)
        .map_or(0, |b| b.count)
}

/// The share of all uses, first ones included, that have a distance below.
fn cumulative(histogram: &Histogram, first_uses: u64) -> Vec<(f64, f64)> {
    let all = histogram.count() + first_uses;
    let mut sum = 0;
    let buckets = histogram.buckets();
    buckets
        .map(|b| {
            sum += b.count;
            (b.below as f64, share(sum, all))
        })
        .collect()
}
