//! Human sizes and durations.

use std::time::Duration;

/// Bytes from `4096`, `64KiB`, `1.5 GiB`.
pub fn size(text: &str) -> Option<u64> {
    let (number, unit) = split(text);
    let factor: u64 = match unit.to_ascii_lowercase().as_str() {
        "" | "b" => 1,
        "k" | "kib" => 1 << 10,
        "m" | "mib" => 1 << 20,
        "g" | "gib" => 1 << 30,
        "t" | "tib" => 1 << 40,
        "kb" => 1_000,
        "mb" => 1_000_000,
        "gb" => 1_000_000_000,
        "tb" => 1_000_000_000_000,
        _ => return None,
    };
    scale(number, factor)
}

/// A duration from `250ms`, `30s`, `5m`, `1h`, `7d`.
pub fn duration(text: &str) -> Option<Duration> {
    let (number, unit) = split(text);
    let ms: u64 = match unit {
        "ms" => 1,
        "s" => 1_000,
        "m" | "min" => 60_000,
        "h" => 3_600_000,
        "d" => 86_400_000,
        _ => return None,
    };
    scale(number, ms).map(Duration::from_millis)
}

/// Bytes for people: `512 B`, `1.5 MiB`.
pub fn human_size(bytes: u64) -> String {
    let mut value = bytes as f64;
    for unit in ["B", "KiB", "MiB", "GiB", "TiB"] {
        if value < 1024.0 {
            return if unit == "B" {
                format!("{bytes} B")
            } else {
                format!("{value:.1} {unit}")
            };
        }
        value /= 1024.0;
    }
    format!("{value:.1} PiB")
}

/// A span for people: `850 us`, `11.0 ms`, `2.5 s`, `3 min 20 s`, `4 h 10 min`, `3 d 2 h`.
pub fn human_micros(micros: u64) -> String {
    let seconds = micros / 1_000_000;
    match micros {
        0..1_000 => format!("{micros} us"),
        1_000..1_000_000 => format!("{:.1} ms", micros as f64 / 1e3),
        1_000_000..60_000_000 => format!("{:.1} s", micros as f64 / 1e6),
        60_000_000..3_600_000_000 => format!("{} min {} s", seconds / 60, seconds % 60),
        3_600_000_000..86_400_000_000 => {
            format!("{} h {} min", seconds / 3600, seconds / 60 % 60)
        }
        _ => format!("{} d {} h", seconds / 86_400, seconds / 3600 % 24),
    }
}

fn split(text: &str) -> (&str, &str) {
    let text = text.trim();
    let end = text
        .find(|c: char| !c.is_ascii_digit() && c != '.')
        .unwrap_or(text.len());
    (&text[..end], text[end..].trim())
}

fn scale(number: &str, factor: u64) -> Option<u64> {
    if let Ok(n) = number.parse::<u64>() {
        return n.checked_mul(factor);
    }
    // There is no half of a byte.
    let n: f64 = number.parse().ok().filter(|_| factor > 1)?;
    let v = n * factor as f64;
    (v.is_finite() && (0.0..=1e18).contains(&v)).then_some(v as u64)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn sizes_and_durations_are_read_with_their_units() {
        let sizes = [
            ("0", 0),
            ("4096", 4096),
            ("64KiB", 65536),
            ("1.5 GiB", 3 << 29),
            ("2MB", 2_000_000),
        ];
        for (text, bytes) in sizes {
            assert_eq!(size(text), Some(bytes), "{text}");
        }
        for text in [
            "",
            "x",
            "1 parsec",
            "1.5",
            "-1",
            "1e9",
            "18446744073709551616",
            "99999999TiB",
        ] {
            assert_eq!(size(text), None, "{text}");
        }
        assert_eq!(duration("250ms"), Some(Duration::from_millis(250)));
        assert_eq!(duration("2m"), Some(Duration::from_secs(120)));
        assert_eq!(duration("1.5h"), Some(Duration::from_secs(5400)));
        assert_eq!(duration("10"), None);
    }

    #[test]
    fn spans_for_people_carry_their_unit() {
        let spans = [
            (0, "0 us"),
            (999, "999 us"),
            (11_000, "11.0 ms"),
            (2_500_000, "2.5 s"),
            (200_000_000, "3 min 20 s"),
            (15_000_000_000, "4 h 10 min"),
            (266_400_000_000, "3 d 2 h"),
        ];
        for (micros, text) in spans {
            assert_eq!(human_micros(micros), text);
        }
    }
}
