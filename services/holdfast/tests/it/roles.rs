//! A context's database role reaches its own schema and no other: all five, each against the four others, on
//! what `holdfast migrate all` makes.
//!
//! Everything that could be done to every table is tried, and undone. Deliberately absent: what a superuser
//! may do.

use holdfast::{
    compose,
    infrastructure::{CONTEXTS, Infrastructure},
};
use holdfast_load_tests::trespass::{Intruder, tables};
use holdfast_platform::{Config, Context, config::Sources};

/// An embedded Postgres with every schema, each with a role of its own. Brokers are named, so that none are
/// started.
async fn migrated() -> (Config, Infrastructure) {
    let flags = vec![("kafka.brokers".to_owned(), "127.0.0.1:1".to_owned())];
    let config = Config::load(&Sources { flags, ..Sources::default() }).unwrap();
    let at = Infrastructure::embedded(&config, None).await.unwrap();
    for context in CONTEXTS {
        compose::migrate(&config, &at, context).await.unwrap();
    }
    (config, at)
}

/// What can be done to a schema.
fn deeds(schema: Context, tables: &[(String, String)]) -> Vec<String> {
    let of_table = |(table, column): &(String, String)| {
        [
            format!("select * from {schema}.{table} limit 1"),
            format!("insert into {schema}.{table} default values"),
            format!("update {schema}.{table} set {column} = {column} where false"),
            format!("delete from {schema}.{table} where false"),
            format!("truncate {schema}.{table}"),
            format!("drop table {schema}.{table} cascade"),
        ]
    };
    let create = format!("create table {schema}.intruder ()");
    tables.iter().flat_map(of_table).chain([create]).collect()
}

#[tokio::test]
async fn each_contexts_role_is_refused_by_every_other_contexts_schema() {
    let (config, at) = migrated().await;
    let (mut allowed, mut refused) = (0, 0);
    for own in CONTEXTS {
        let role = at.role(&config, own).expect("on the embedded server each has its own");
        let url = at.database_url(&config, own).unwrap();
        let mut intruder = Intruder::connect(&url, &role).await.unwrap();
        for schema in CONTEXTS {
            let tables = tables(&url, schema.as_str()).await.unwrap();
            assert!(tables.len() > 8, "{schema} has {tables:?}");
            for deed in deeds(schema, &tables) {
                let may = intruder.may(&deed).await.unwrap();
                assert_eq!(may, own == schema, "{role}: {deed}");
                *if may { &mut allowed } else { &mut refused } += 1;
            }
        }
    }
    // A grant too many would be seen.
    let url = at.database_url(&config, Context::Orders).unwrap();
    let mut administrator = Intruder::connect(&url, "none").await.unwrap();
    let steal = "set local role holdfast_payments; select * from orders.aggregates limit 1";
    let grant =
        "grant usage on schema orders to holdfast_payments; grant select on orders.aggregates to holdfast_payments";
    assert!(!administrator.may(steal).await.unwrap());
    assert!(administrator.may(&format!("{grant}; {steal}")).await.unwrap());
    println!("{allowed} deeds in their own schemas, {refused} refused in others'");
    at.stop().await.unwrap();
}
