//! Each bound rejects what is beyond it, by its own reason, keeps the rest, and says which bound it was.

use headroom_ingest::{Decoder, IdentityConfig, IngestLimits, RejectReason};

/// A gauge `name` with points of these attributes, as JSON.
fn metric(name: &str, attributes: &[&str]) -> String {
    let points: Vec<String> = attributes
        .iter()
        .map(|list| format!(r#"{{"timeUnixNano":1795255210000000000,"asInt":1,"attributes":[{list}]}}"#))
        .collect();
    format!(r#"{{"name":"{name}","gauge":{{"dataPoints":[{}]}}}}"#, points.join(","))
}

fn attribute(key: &str, value: &str) -> String {
    format!(r#"{{"key":"{key}","value":{value}}}"#)
}

fn resource(attributes: &str, metrics: &[String]) -> String {
    format!(r#"{{"resource":{{"attributes":[{attributes}]}},"scopeMetrics":[{{"metrics":[{}]}}]}}"#, metrics.join(","))
}

fn host(name: &str) -> String {
    attribute("host.name", &format!(r#"{{"stringValue":"{name}"}}"#))
}

#[track_caller]
fn check(limits: IngestLimits, resources: &[String], accepted: u64, rejected: &[(RejectReason, u64)]) {
    let mut decoder = Decoder::new(IdentityConfig::default(), limits);
    let body = format!(r#"{{"resourceMetrics":[{}]}}"#, resources.join(","));
    // The second time everything comes from memory, and nothing may change.
    for _ in 0..2 {
        let decoded = decoder.decode_json(body.as_bytes()).unwrap();
        assert_eq!(decoded.report.rejections().collect::<Vec<_>>(), rejected, "{:?}", decoded.report.message);
        assert_eq!(decoded.report.accepted_points, accepted);
        assert_eq!(decoded.batch.len() as u64, accepted);
        let message = decoded.report.message.unwrap_or_default();
        for (reason, _) in rejected {
            assert!(message.contains(reason.as_str()), "{message}");
        }
    }
}

#[test]
fn bounds_of_a_request() {
    let limits = IngestLimits::default;
    let cpu = |n: &str| attribute("cpu", &format!(r#"{{"stringValue":"{n}"}}"#));
    let three = metric("m", &[&cpu("0"), &cpu("1"), &cpu("2")]);
    check(
        IngestLimits { points_per_request_max: 2, ..limits() },
        &[resource(&host("a"), std::slice::from_ref(&three))],
        2,
        &[(RejectReason::TooManyPoints, 1)],
    );
    check(
        IngestLimits { series_per_request_max: 2, ..limits() },
        &[resource(&host("a"), &[three])],
        2,
        &[(RejectReason::TooManySeries, 1)],
    );
    let one = [metric("m", &[""])];
    let hosts = ["a", "b", "c"].map(|name| resource(&host(name), &one));
    check(IngestLimits { resources_per_request_max: 2, ..limits() }, &hosts, 2, &[(RejectReason::TooManyResources, 1)]);
}

#[test]
fn bounds_of_attributes_and_names() {
    let limits = || IngestLimits {
        attributes_max: 2,
        attribute_key_bytes_max: 9,
        attribute_value_bytes_max: 8,
        nesting_max: 1,
        ..IngestLimits::default()
    };
    let text = |key: &str, value: &str| attribute(key, &format!(r#"{{"stringValue":"{value}"}}"#));
    let many = [text("a", ""), text("b", ""), text("c", "")].join(",");
    let deep = attribute("a", r#"{"arrayValue":{"values":[{"arrayValue":{"values":[]}}]}}"#);
    let points = metric("m", &["", &many, &text("key-of-ten", ""), &text("a", "value-of-10"), &deep]);
    check(
        limits(),
        &[resource(&host("a"), &[points])],
        1,
        &[(RejectReason::TooManyAttributes, 1), (RejectReason::AttributeTooLong, 2), (RejectReason::NestedTooDeep, 1)],
    );
    let long_name = [metric("m", &[""]), metric("mm", &["", ""]), metric("", &[""])];
    let limits = IngestLimits { metric_name_bytes_max: 1, ..limits() };
    check(
        limits,
        &[resource(&host("a"), &long_name)],
        1,
        &[(RejectReason::NoMetricName, 1), (RejectReason::MetricNameTooLong, 2)],
    );
}

#[test]
fn a_summary_counts_for_the_rows_that_it_becomes() {
    // Four rows each: count, sum and two quantiles.
    let quantiles = r#"[{"quantile":0.5,"value":1},{"quantile":0.99,"value":2}]"#;
    let point = format!(r#"{{"timeUnixNano":1795255210000000000,"count":1,"sum":1,"quantileValues":{quantiles}}}"#);
    let summary = format!(r#"{{"name":"s","summary":{{"dataPoints":[{point},{point}]}}}}"#);
    for (points_per_request_max, rows, rejected) in [(3, 0, 2), (4, 4, 1), (7, 4, 1), (8, 8, 0)] {
        let limits = IngestLimits { points_per_request_max, ..IngestLimits::default() };
        let body = format!(r#"{{"resourceMetrics":[{}]}}"#, resource(&host("a"), std::slice::from_ref(&summary)));
        let decoded = Decoder::new(IdentityConfig::default(), limits).decode_json(body.as_bytes()).unwrap();
        let counted = decoded.report.rejected(RejectReason::TooManyPoints);
        assert_eq!((decoded.batch.len(), counted), (rows, rejected), "{points_per_request_max}");
    }
}

#[test]
fn a_long_value_of_a_resource_is_cut_but_never_names_a_server() {
    let limits = IngestLimits { attribute_value_bytes_max: 8, ..IngestLimits::default() };
    let one = [metric("m", &[""])];
    let command = attribute("process.command_line", r#"{"stringValue":"éééééééé"}"#);
    let resources = [resource(&format!("{},{command}", host("a")), &one), resource(&host("name-of-10"), &one)];
    check(limits.clone(), &resources, 1, &[(RejectReason::IdentityTooLong, 1)]);
    let body = format!(r#"{{"resourceMetrics":[{}]}}"#, resources[0]);
    let decoded = Decoder::new(IdentityConfig::default(), limits).decode_json(body.as_bytes()).unwrap();
    assert_eq!(decoded.report.cut_attributes, 1);
    assert_eq!(decoded.batch.resources[0].attribute("process.command_line"), Some("éééé"));
}

#[test]
fn aliases_too_long_or_too_many_are_counted() {
    let listed = |aliases: &[String]| {
        let names = attribute("headroom.alias", &format!(r#"{{"stringValue":"{}"}}"#, aliases.join(",")));
        let body = format!(
            r#"{{"resourceMetrics":[{}]}}"#,
            resource(&format!("{},{names}", host("a")), &[metric("m", &[""])])
        );
        let mut decoder = Decoder::new(IdentityConfig::default(), IngestLimits::default());
        let decoded = decoder.decode_json(body.as_bytes()).unwrap();
        let aliases = decoded.batch.resources[0].aliases.len();
        (aliases, decoded.report.left_out().collect::<Vec<_>>())
    };
    let names = |count: usize| (0..count).map(|number| format!("n{number}")).collect::<Vec<_>>();
    assert_eq!(listed(&names(32)), (32, vec![]));
    assert_eq!(listed(&names(35)), (32, vec![("alias", 3)]));
    assert_eq!(listed(&["a".into(), "x".repeat(300)]), (0, vec![("alias", 1)]));
}

#[test]
fn a_full_memory_forgets_and_goes_on() {
    let limits = IngestLimits { cached_resources_max: 1, cached_series_max: 1, ..IngestLimits::default() };
    let metrics = [metric("m", &[""]), metric("n", &[""])];
    check(limits, &["a", "b", "c"].map(|name| resource(&host(name), &metrics)), 6, &[]);
}

#[test]
fn the_message_names_the_missing_attribute_and_the_way_out() {
    let body = format!(r#"{{"resourceMetrics":[{}]}}"#, resource("", &[metric("m", &["", ""])]));
    let report =
        Decoder::new(IdentityConfig::default(), IngestLimits::default()).decode_json(body.as_bytes()).unwrap().report;
    let message = report.message.unwrap();
    for part in ["rejected 2 data points", "host.id", "OTEL_RESOURCE_ATTRIBUTES=host.name=", "key: host.name"] {
        assert!(message.contains(part), "{message}");
    }
}
