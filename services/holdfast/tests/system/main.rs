//! The product as its users meet it: the real binary, a real Kafka, a real Postgres, records and calls from
//! outside.
//!
//! One shop is opened for all tests, through the binary's own verbs. Deliberately absent: anything that looks
//! inside the process.

mod bad_records;
mod calls;
mod command_line;
mod dev;
mod door;
mod downstream;
mod edge;
mod flash_sale;
mod life;
mod nodes;
mod operators;
mod otlp;
mod poison;
mod shop;
mod telemetry;

use std::{process::ExitCode, sync::Arc};

use libtest_mimic::{Arguments, Failed, Trial};
use tokio::runtime::Runtime;

use crate::{door::Door, shop::Shop};

fn main() -> ExitCode {
    let mut arguments = Arguments::from_args();
    // They share one shop, and some of them measure.
    arguments.test_threads = Some(1);
    if arguments.list {
        return libtest_mimic::run(&arguments, every(None)).exit_code();
    }
    let runtime = Arc::new(Runtime::new().expect("the tests' runtime starts"));
    let shop = runtime.block_on(Shop::open());
    let shop = match shop {
        Ok(shop) => Arc::new(shop),
        Err(error) => {
            eprintln!("the shop does not open: {}", error.message().unwrap_or_default());
            return ExitCode::FAILURE;
        }
    };
    let door = Arc::new(Door::default());
    let all = every(Some((shop.clone(), door.clone(), runtime.clone())));
    let conclusion = libtest_mimic::run(&arguments, all);
    // Dropping the last handles stops the servers.
    drop((shop, door));
    conclusion.exit_code()
}

/// `open` is there unless tests are only listed. Schemathesis, where it was asked for, comes alone: the rest
/// is for the test run.
fn every(open: Option<(Arc<Shop>, Arc<Door>, Arc<Runtime>)>) -> Vec<Trial> {
    let (shop, door) = open.map(|(shop, door, runtime)| ((shop, runtime.clone()), (door, runtime))).unzip();
    let mut all = trials(shop);
    if std::env::var_os(edge::SCHEMATHESIS).is_none() {
        all.extend(door::trials(door));
    }
    all
}

fn trials(open: Option<(Arc<Shop>, Arc<Runtime>)>) -> Vec<Trial> {
    macro_rules! trial {
        ($($module:ident)::+ => $law:ident) => {{
            let open = open.clone();
            Trial::test(concat!($(stringify!($module), "::",)+ stringify!($law)), move || {
                let Some((shop, runtime)) = open else { return Err(Failed::without_message()) };
                runtime.block_on($($module::)+$law(&shop))
            })
        }};
    }
    if std::env::var_os(edge::SCHEMATHESIS).is_some() {
        return vec![trial!(edge => schemathesis_finds_no_failure_and_no_undeclared_answer)];
    }
    vec![
        trial!(command_line => a_wrong_value_exits_2_and_names_itself),
        trial!(command_line => an_unreachable_dependency_exits_3),
        trial!(command_line => a_taken_port_is_named),
        trial!(bad_records => dead_letter_keeps_bad_records_bytes_and_partition_goes_on),
        trial!(bad_records => compressed_record_larger_than_any_topic_takes_is_cut),
        trial!(bad_records => an_identical_repeat_does_nothing_and_another_body_is_invalid),
        trial!(calls => malformed_input_is_an_invalid_argument_with_its_field),
        trial!(calls => kafka_and_grpc_reach_the_same_actor_through_the_same_claims),
        trial!(telemetry => one_trace_leads_through_both_contexts),
        trial!(telemetry => what_the_caller_sent_shows_up_in_no_log_metric_or_error_text),
        trial!(otlp => collector_gets_one_two_context_trace_without_personal_data),
        trial!(operators => see_owners_lag_live_actors_and_what_is_wrong),
        trial!(flash_sale => exactly_the_stock_is_sold_and_bystanders_are_served),
        trial!(poison => panicking_command_is_dead_letter_and_10000_others_are_done),
        trial!(life => every_order_ends_and_provider_books_and_shelves_balance),
        trial!(dev => refund_after_a_restart_goes_to_the_charge_of_its_own_order),
        trial!(edge => an_order_lives_through_rest_and_only_its_customer_gets_at_it),
        trial!(edge::pages => browser_shows_order_changes_with_and_without_scripts),
        trial!(nodes => any_node_answers_for_any_order_in_the_callers_trace),
        trial!(nodes => a_watch_and_its_orders_survive_a_node_that_leaves_cleanly),
        trial!(nodes => a_watch_and_its_orders_survive_a_node_that_is_killed),
        trial!(downstream => in_trouble_is_asked_less_and_holds_up_only_who_needs_it),
    ]
}
