//! Topics: planned, made once, never shrunk.

use holdfast_core::port::log::LogError;
use holdfast_kafka::{
    ConfigError, KafkaAdmin, KafkaConfig, KafkaLog, KafkaMembership, KafkaPublisher,
    admin::{Step, TopicSpec, plan},
};
use uuid::Uuid;

use crate::rig::{broker, until};

#[tokio::test]
async fn applying_a_plan_twice_changes_nothing() {
    let config = KafkaConfig::new(broker().await.brokers(), format!("t{}", Uuid::new_v4().simple()));
    let admin = KafkaAdmin::new(&config).expect("admin");
    let brokers = admin.broker_count().await.expect("brokers");
    assert_eq!(brokers, 1);
    let wanted = TopicSpec::of_context(&config.context, 3, brokers);
    let names = wanted.iter().map(|spec| spec.name.clone()).collect::<Vec<_>>();
    let steps = plan(&admin.describe(&names).await.expect("described"), &wanted);
    assert_eq!(steps.len(), 3);
    admin.apply(&steps, false).await.expect("applied");
    // Another node had the same plan.
    admin.apply(&steps, false).await.expect("applied again");
    until("they are there", async || admin.describe(&names).await.is_ok_and(|found| found.len() == 3)).await;
    assert_eq!(plan(&admin.describe(&names).await.expect("described"), &wanted), []);

    let fewer = TopicSpec::of_context(&config.context, 2, brokers);
    let steps = plan(&admin.describe(&names).await.expect("described"), &fewer);
    assert!(steps.iter().all(|step| matches!(step, Step::Drift { .. })) && steps.len() == 3, "{steps:?}");
    admin.apply(&steps, true).await.expect("applied");

    let more = TopicSpec::of_context(&config.context, 6, brokers);
    let steps = plan(&admin.describe(&names).await.expect("described"), &more);
    admin.apply(&steps, false).await.expect("nothing to apply");
    assert_eq!(admin.describe(&names).await.expect("described")[0].partitions, 3, "growing must be asked for");
    admin.apply(&steps, true).await.expect("grown");
    admin.apply(&steps, true).await.expect("grown before");
    until("they have grown", async || {
        admin.describe(&names).await.is_ok_and(|found| found.iter().all(|topic| topic.partitions == 6))
    })
    .await;
    assert_eq!(admin.grow("nowhere.commands", 3).await, Err(LogError::NoSuchTopic("nowhere.commands".to_owned())));
}

#[tokio::test]
async fn bad_properties_are_refused_by_every_client() {
    let mut config = KafkaConfig::new("localhost:9092", "orders");
    config.properties.insert("acks".to_owned(), "1".to_owned());
    let refused = |result: Result<(), ConfigError>| {
        let error = result.expect_err("acks=1 is not safe").to_string();
        assert!(error.contains("acks"), "{error}");
    };
    refused(KafkaLog::new(&config).map(drop));
    refused(KafkaMembership::join(&config).map(drop));
    refused(KafkaPublisher::new(&config).map(drop));
    refused(KafkaAdmin::new(&config).map(drop));
}
