//! The devices of a simulation, as they are named on the command line.

use tiering::sim::Device;

/// Known devices: name, what it is and where the numbers come from, milliseconds per positioning, MiB per second.
pub const PRESETS: [(&str, &str, Device); 4] = [
    ("hdd", "a disk of 7200 rpm (Baleen, FAST '24)", Device::HDD),
    ("ssd", "a SATA SSD (assumed, not measured)", Device::SSD),
    (
        "nvme",
        "an NVMe SSD (assumed, not measured)",
        Device {
            seek_ms: 0.02,
            transfer_mib_per_s: 2000.0,
        },
    ),
    (
        "sd-card",
        "a card of speed class A1: 1500 random reads and 10 MB of writes a second (SD Association)",
        Device {
            seek_ms: 0.667,
            transfer_mib_per_s: 9.54,
        },
    ),
];

/// Reads the name of a preset, or milliseconds per positioning and MiB per second: `11.5,143`.
///
/// # Errors
/// When it is neither.
pub fn device(text: &str) -> Result<Device, String> {
    if let Some((_, _, device)) = PRESETS.iter().find(|(name, ..)| *name == text) {
        return Ok(*device);
    }
    let wrong = || {
        let names = PRESETS.map(|(name, ..)| name).join(", ");
        format!("write {names}, or milliseconds per positioning and MiB per second, as in 11.5,143")
    };
    let (seek, transfer) = text.split_once(',').ok_or_else(wrong)?;
    let number = |text: &str, least: f64, most: f64| {
        let number = text.trim().parse::<f64>().map_err(|_| wrong())?;
        let range = format!("`{text}` is not between {least} and {most}: {}", wrong());
        (least..=most)
            .contains(&number)
            .then_some(number)
            .ok_or(range)
    };
    Ok(Device {
        seek_ms: number(seek, 0.0, 10_000.0)?,
        transfer_mib_per_s: number(transfer, 0.001, 1_000_000.0)?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn devices_have_names_or_numbers() {
        assert_eq!(device("hdd"), Ok(Device::HDD));
        let own = device("8.2, 210").map(|d| (d.seek_ms, d.transfer_mib_per_s));
        assert_eq!(own, Ok((8.2, 210.0)));
        for wrong in ["", "tape", "1", "1,0", "-1,100", "1,2,3", "nan,1", "inf,1"] {
            assert!(device(wrong).is_err_and(|e| e.contains("nvme")), "{wrong}");
        }
    }
}
