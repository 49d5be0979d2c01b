//! Which traces are kept.
//!
//! The parent's decision is followed; for roots a share is kept, [`Boost`]s raise it by rule, and a root span
//! with the attribute [`crate::semconv::KEEP`] = true is always kept (a retry, a dead letter: what already
//! went wrong when the span begins).
//!
//! Deliberately absent: keeping a trace because it *turned out* slow or failed. A head sampler can't know,
//! and recording every span to decide later would cost the pipeline more than the traces are worth; a
//! collector's tail sampling does it, for which `OTEL_TRACES_SAMPLER=always_on` sends everything.

use opentelemetry::{
    Context, KeyValue, Value,
    trace::{Link, SpanKind, TraceId},
};
use opentelemetry_sdk::trace::{Sampler, SamplingResult, ShouldSample};

use super::{Error, variable};
use crate::semconv;

/// Keeps more of the root spans whose name starts with a prefix, such as one route.
#[derive(Debug, Clone, PartialEq)]
pub struct Boost {
    /// Beginning of the span's name.
    pub name_prefix: String,
    /// Share kept, 0 to 1.
    pub ratio: f64,
}

/// Decides about root spans; put under a parent-based sampler.
#[derive(Debug, Clone)]
struct Boosted {
    base: Sampler,
    boosts: Vec<Boost>,
}

impl ShouldSample for Boosted {
    fn should_sample(
        &self,
        parent: Option<&Context>,
        trace_id: TraceId,
        name: &str,
        kind: &SpanKind,
        attributes: &[KeyValue],
        links: &[Link],
    ) -> SamplingResult {
        let keep = attributes.iter().any(|pair| pair.key.as_str() == semconv::KEEP && pair.value == Value::Bool(true));
        let named = |boost: &&Boost| name.starts_with(&boost.name_prefix);
        let sampler = match self.boosts.iter().find(named) {
            _ if keep => Sampler::AlwaysOn,
            Some(boost) => Sampler::TraceIdRatioBased(boost.ratio),
            None => self.base.clone(),
        };
        sampler.should_sample(parent, trace_id, name, kind, attributes, links)
    }
}

/// The process's sampler. Without an exporter no root is recorded, but ids and the parent's decision still
/// travel.
pub(super) fn sampler(ratio: f64, boosts: &[Boost], exported: bool) -> Result<Box<dyn ShouldSample>, Error> {
    if !exported {
        return Ok(Box::new(Sampler::ParentBased(Box::new(Sampler::AlwaysOff))));
    }
    chosen(variable(SAMPLER).as_deref(), variable(ARGUMENT).as_deref(), ratio, boosts)
}

const SAMPLER: &str = "OTEL_TRACES_SAMPLER";
const ARGUMENT: &str = "OTEL_TRACES_SAMPLER_ARG";

fn chosen(
    sampler: Option<&str>,
    argument: Option<&str>,
    ratio: f64,
    boosts: &[Boost],
) -> Result<Box<dyn ShouldSample>, Error> {
    let share = || {
        let text = argument.unwrap_or("1.0");
        text.parse::<f64>().ok().filter(|share| (0.0..=1.0).contains(share)).ok_or_else(|| Error::Variable {
            variable: ARGUMENT,
            value: text.to_owned(),
            allowed: "a number from 0 to 1",
        })
    };
    let with_boosts = |base: Sampler| -> Box<dyn ShouldSample> { Box::new(Boosted { base, boosts: boosts.to_vec() }) };
    let parent_based = |root: Box<dyn ShouldSample>| -> Box<dyn ShouldSample> { Box::new(Sampler::ParentBased(root)) };
    Ok(match sampler {
        None => parent_based(with_boosts(Sampler::TraceIdRatioBased(ratio))),
        Some("always_on") => Box::new(Sampler::AlwaysOn),
        Some("always_off") => Box::new(Sampler::AlwaysOff),
        Some("traceidratio") => with_boosts(Sampler::TraceIdRatioBased(share()?)),
        Some("parentbased_always_on") => parent_based(Box::new(Sampler::AlwaysOn)),
        Some("parentbased_always_off") => parent_based(Box::new(Sampler::AlwaysOff)),
        Some("parentbased_traceidratio") => parent_based(with_boosts(Sampler::TraceIdRatioBased(share()?))),
        Some(other) => {
            return Err(Error::Variable {
                variable: SAMPLER,
                value: other.to_owned(),
                allowed: "always_on, always_off, traceidratio, parentbased_always_on, parentbased_always_off or \
                          parentbased_traceidratio",
            });
        }
    })
}

#[cfg(test)]
mod tests {
    use opentelemetry_sdk::trace::SamplingDecision;

    use super::*;

    fn kept(sampler: &dyn ShouldSample, name: &str, attributes: &[KeyValue]) -> usize {
        (0..1000_u128)
            .filter(|n| {
                let id = TraceId::from(n * 0x0031_4159_2653_5897_9323_8462_6433_8327);
                sampler.should_sample(None, id, name, &SpanKind::Server, attributes, &[]).decision
                    == SamplingDecision::RecordAndSample
            })
            .count()
    }

    #[test]
    fn a_rule_or_an_attribute_keeps_more() {
        let boosts = [Boost { name_prefix: "holdfast.orders".into(), ratio: 1.0 }];
        let sampler = chosen(None, None, 0.05, &boosts).unwrap();
        let share = kept(&*sampler, "other", &[]);
        assert!((10..150).contains(&share), "{share}");
        assert_eq!(kept(&*sampler, "holdfast.orders.v1.OrderService/PlaceOrder", &[]), 1000);
        assert_eq!(kept(&*sampler, "other", &[KeyValue::new(semconv::KEEP, true)]), 1000);
    }

    #[test]
    fn the_standard_variable_wins() {
        let boosts = [];
        assert_eq!(kept(&*chosen(Some("always_on"), None, 0.0, &boosts).unwrap(), "x", &[]), 1000);
        assert_eq!(kept(&*chosen(Some("parentbased_always_off"), None, 1.0, &boosts).unwrap(), "x", &[]), 0);
        assert_eq!(kept(&*chosen(Some("traceidratio"), Some("0"), 1.0, &boosts).unwrap(), "x", &[]), 0);
    }

    #[test]
    fn a_bad_standard_variable_names_itself() {
        let message = chosen(Some("sometimes"), None, 0.0, &[]).unwrap_err().to_string();
        assert!(message.contains("`sometimes` for `OTEL_TRACES_SAMPLER`"), "{message}");
        let message = chosen(Some("traceidratio"), Some("2"), 0.0, &[]).unwrap_err().to_string();
        assert!(message.contains("`2` for `OTEL_TRACES_SAMPLER_ARG`"), "{message}");
    }
}
