//! Histograms of latencies in the formats of HdrHistogram's own tools.

use hdrhistogram::Histogram;
use hdrhistogram::serialization::V2DeflateSerializer;
use hdrhistogram::serialization::interval_log::{IntervalLogWriterBuilder, Tag};
use std::fmt::Write as _;
use std::time::Duration;

/// Steps in each half of what is left to 100 %, as HdrHistogram's tools have it.
const TICKS: u32 = 5;

/// Points of the distribution function: latency in microseconds, and the share of requests that took no longer.
pub(super) fn cdf(histogram: &Histogram<u64>) -> Vec<(u64, f64)> {
    let points = histogram.iter_quantiles(TICKS);
    points
        .map(|p| (p.value_iterated_to(), p.quantile()))
        .collect()
}

/// The percentile distribution in milliseconds, as `HistogramLogProcessor` prints it and plotters read it.
pub(super) fn hgrm(histogram: &Histogram<u64>) -> String {
    let mut out = String::from("       Value     Percentile TotalCount 1/(1-Percentile)\n\n");
    let mut total = 0;
    for point in histogram.iter_quantiles(TICKS) {
        total += point.count_since_last_iteration();
        let (value, share) = (
            point.value_iterated_to() as f64 / 1e3,
            point.quantile_iterated_to(),
        );
        let _ = write!(out, "{value:12.3} {share:1.12} {total:10}");
        let _ = match share < 1.0 {
            true => writeln!(out, " {:14.2}", 1.0 / (1.0 - share)),
            false => writeln!(out),
        };
    }
    let (mean, deviation) = (histogram.mean() / 1e3, histogram.stdev() / 1e3);
    let _ = writeln!(
        out,
        "#[Mean    = {mean:12.3}, StdDeviation   = {deviation:12.3}]"
    );
    let (max, count) = (histogram.max() as f64 / 1e3, histogram.len());
    let _ = writeln!(out, "#[Max     = {max:12.3}, Total count    = {count:12}]");
    let (buckets, steps) = (histogram.buckets(), histogram.distinct_values());
    // Three digits make 2048 steps in the first bucket, and half as many in each further one.
    let steps = 2 * steps / (usize::from(buckets) + 1);
    let _ = writeln!(
        out,
        "#[Buckets = {buckets:12}, SubBuckets     = {steps:12}]"
    );
    out
}

/// All histograms, each as an interval with its name as tag: `HistogramLogProcessor -tag NAME` reads them.
pub(super) fn log(histograms: &[(String, u64, &Histogram<u64>)]) -> anyhow::Result<String> {
    let mut bytes = Vec::new();
    let mut serializer = V2DeflateSerializer::new();
    let mut builder = IntervalLogWriterBuilder::new();
    builder.add_comment("latencies in microseconds; the greatest of each line in milliseconds");
    builder.with_max_value_divisor(1e3);
    let mut log = builder.begin_log_with(&mut bytes, &mut serializer)?;
    for (name, elapsed_us, histogram) in histograms {
        let length = Duration::from_micros(*elapsed_us);
        log.write_histogram(histogram, Duration::ZERO, length, Tag::new(name))
            .map_err(|e| anyhow::anyhow!("{name}: {e:?}"))?;
    }
    Ok(String::from_utf8(bytes)?)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;
    use base64::Engine;
    use hdrhistogram::serialization::Deserializer;
    use hdrhistogram::serialization::interval_log::{IntervalLogIterator, LogEntry};

    fn thousand() -> Histogram<u64> {
        let mut histogram = Histogram::new_with_bounds(1, 3_600_000_000, 3).unwrap();
        for value in 1..=1000 {
            histogram.record(value * 1000).unwrap();
        }
        histogram
    }

    #[test]
    fn an_hgrm_file_has_the_columns_and_ends_at_all_requests() {
        let text = hgrm(&thousand());
        let rows: Vec<Vec<f64>> = text
            .lines()
            .skip(2)
            .filter(|l| !l.starts_with('#'))
            .map(|l| l.split_whitespace().map(|n| n.parse().unwrap()).collect())
            .collect();
        let median = rows.iter().find(|r| r[1] == 0.5).unwrap();
        assert!(
            (median[0] - 500.0).abs() < 1.0 && median[2] == 500.0 && median[3] == 2.0,
            "{median:?}"
        );
        let last = rows.last().unwrap();
        assert!(
            last.len() == 3 && last[1] == 1.0 && last[2] == 1000.0,
            "{last:?}"
        );
        assert!(
            rows.windows(2)
                .all(|r| r[0][0] <= r[1][0] && r[0][2] <= r[1][2])
        );
        assert!(text.contains("Total count    =         1000]"), "{text}");
        assert!(text.contains("SubBuckets     =         2048]"), "{text}");
    }

    #[test]
    fn the_log_holds_every_histogram_whole() {
        let histogram = thousand();
        let text = log(&[("replay-GET".into(), 5_000_000, &histogram)]).unwrap();
        let found: Vec<_> = IntervalLogIterator::new(text.as_bytes())
            .map(Result::unwrap)
            .filter_map(|e| match e {
                LogEntry::Interval(i) => Some(i),
                _ => None,
            })
            .collect();
        assert_eq!(found[0].tag().unwrap().as_str(), "replay-GET");
        let bytes = base64::engine::general_purpose::STANDARD
            .decode(found[0].encoded_histogram())
            .unwrap();
        let back: Histogram<u64> = Deserializer::new().deserialize(&mut &bytes[..]).unwrap();
        assert_eq!(back, histogram);
    }
}
