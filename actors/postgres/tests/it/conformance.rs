//! The laws of the port, in the first format and in the latest.

use crate::fixture::Fresh;

holdfast_testkit::store_conformance! {
    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async || Fresh::new().await
}

mod format_1 {
    use super::Fresh;

    holdfast_testkit::store_conformance! {
        #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
        async || Fresh::of_format_1().await
    }
}
