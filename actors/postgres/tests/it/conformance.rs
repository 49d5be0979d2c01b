//! The laws of the port.

use crate::fixture::Fresh;

holdfast_testkit::store_conformance! {
    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async || Fresh::new().await
}
