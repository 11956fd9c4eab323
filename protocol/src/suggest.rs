//! Suggestions for unknown names.

/// The candidate that is most similar to a name, if one is similar enough.
pub fn did_you_mean<'a>(given: &str, candidates: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let normal = |s: &str| s.to_ascii_lowercase().replace('-', "_");
    candidates
        .map(|c| (strsim::jaro_winkler(&normal(given), &normal(c)), c))
        .filter(|(score, _)| *score > 0.8)
        .max_by(|a, b| a.0.total_cmp(&b.0))
        .map(|(_, c)| c)
}
