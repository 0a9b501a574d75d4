//! Reads Prometheus's text format.

/// The sum of the samples of one name of which the labels contain a text, such as
/// `outcome="stored"`, to the integer. None if one is no number; 0 if there are none.
#[expect(
    clippy::cast_possible_truncation,
    reason = "what is counted here is less than 2^53"
)]
pub fn sum(text: &str, name: &str, label: &str) -> Option<i64> {
    let samples = text.lines().filter_map(|line| {
        let rest = line.strip_prefix(name)?;
        let (labels, value) = rest.rsplit_once(' ')?;
        let is_of_name = labels.is_empty() || labels.starts_with('{');
        let value = value.parse::<f64>().ok()?;
        (is_of_name && labels.contains(label)).then_some(value)
    });
    let sum: f64 = samples.sum();
    sum.is_finite().then_some(sum as i64)
}

/// The value of the one sample of a name.
pub fn value(text: &str, name: &str) -> f64 {
    let sample = text
        .lines()
        .find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    sample.unwrap().parse().unwrap()
}
