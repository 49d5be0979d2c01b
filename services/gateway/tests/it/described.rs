//! The description that is made of the code.

use std::collections::BTreeSet;

use holdfast_gateway::app;
use serde_json::Value;

fn description() -> Value {
    serde_json::to_value(app::description()).unwrap()
}

#[test]
fn it_is_openapi_3_1_and_every_operation_says_what_it_answers() {
    let description = description();
    assert!(description["openapi"].as_str().unwrap().starts_with("3.1"));
    let (mut operations, mut names) = (0, BTreeSet::new());
    for (path, methods) in description["paths"].as_object().unwrap() {
        for (method, operation) in methods.as_object().unwrap() {
            operations += 1;
            let name = operation["operationId"].as_str().unwrap().to_owned();
            assert!(names.insert(name.clone()), "{name} is the name of two");
            let answers = operation["responses"].as_object().unwrap();
            assert!(operation["summary"].is_string(), "{method} {path}");
            for status in ["400", "401", "403", "404", "429", "500", "503", "504"] {
                let content = &answers[status]["content"];
                assert!(content["application/problem+json"].is_object(), "{method} {path}: {status}");
            }
            let parameters = operation["parameters"].as_array().cloned().unwrap_or_default();
            let has_key = parameters.iter().any(|parameter| parameter["name"] == "Idempotency-Key");
            assert_eq!(has_key, method != "get", "{method} {path}: a mutation has a key, a read has none");
        }
    }
    assert!(operations > 15, "{operations}");
}

#[test]
fn everything_needs_a_token() {
    let description = description();
    assert!(description["security"][0]["bearer"].is_array());
    assert_eq!(description["components"]["securitySchemes"]["bearer"]["scheme"], "bearer");
}

#[test]
fn every_reference_leads_somewhere() {
    let description = description();
    let text = description.to_string();
    let references: BTreeSet<&str> =
        text.split("\"$ref\":\"#").skip(1).filter_map(|rest| rest.split('"').next()).collect();
    assert!(references.len() > 10, "{references:?}");
    for reference in references {
        assert!(description.pointer(reference).is_some(), "{reference}");
    }
}
