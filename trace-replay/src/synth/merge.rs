//! When Lucene merges segments: `TieredMergePolicy` of Lucene 8 with Elasticsearch 7's settings, without deletions.

/// Smaller segments count as this large (`floor_segment`, 2 MB).
const FLOOR: u64 = 2 << 20;
/// `segments_per_tier` and `max_merge_at_once`.
const PER_TIER: usize = 10;
/// `max_merged_segment`, 5 GB.
const MERGED_MAX: u64 = 5 << 30;

/// The segments to merge now, as indices into `sizes`; none when there are few enough.
pub fn choose(sizes: &[u64]) -> Option<Vec<usize>> {
    let mut order: Vec<usize> = (0..sizes.len())
        .filter(|&i| sizes[i] <= MERGED_MAX / 2)
        .collect();
    order.sort_by_key(|&i| (std::cmp::Reverse(sizes[i]), i));
    let floored = |i: &usize| sizes[*i].max(FLOOR);
    let smallest = order.iter().map(floored).min()?;
    let total: u64 = order.iter().map(|&i| sizes[i]).sum();
    // As many as fit in tiers of ten, each tier of segments ten times as large.
    let (mut level, mut left, mut allowed) = (smallest as f64, total as f64, 0.0);
    loop {
        let count = left / level;
        if count < PER_TIER as f64 {
            allowed += count.ceil();
            break;
        }
        allowed += PER_TIER as f64;
        left -= PER_TIER as f64 * level;
        level *= PER_TIER as f64;
    }
    if order.len() as f64 <= allowed || order.len() < 2 {
        return None;
    }
    // The most even window wins, small ones a little before large ones.
    let mut best: Option<(f64, Vec<usize>)> = None;
    for start in 0..order.len().saturating_sub(PER_TIER - 1) {
        let window = &order[start..start + PER_TIER];
        let bytes: u64 = window.iter().map(|&i| sizes[i]).sum();
        let even: u64 = window.iter().map(floored).sum();
        if bytes > MERGED_MAX {
            continue;
        }
        let skew = window.first().map_or(0, floored) as f64 / even as f64;
        let score = skew * (bytes as f64).powf(0.05);
        if best.as_ref().is_none_or(|(least, _)| score < *least) {
            best = Some((score, window.to_vec()));
        }
    }
    best.map(|(_, window)| window)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn even_segments_are_merged_when_a_tier_is_over_full() {
        assert_eq!(choose(&[]), None);
        // Ten in the first tier, and one that is as large as the rest.
        assert_eq!(choose(&[12 << 20; 11]), None);
        let chosen = choose(&[12 << 20; 12]);
        assert_eq!(chosen.map(|c| c.len()), Some(10));
        // The large one is left alone.
        let mut sizes = vec![1 << 30];
        sizes.extend([12 << 20; 30]);
        assert!(choose(&sizes).is_some_and(|c| c.len() == 10 && !c.contains(&0)));
        assert_eq!(choose(&[6 << 30, 12 << 20]), None);
    }
}
