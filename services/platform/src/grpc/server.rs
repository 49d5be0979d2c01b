//! A gRPC server with everything a process of ours has: limits, health v1, reflection v1, TLS if configured.
//!
//! Invariant: stopping takes at most [`Limits::drain`], although hyper waits for ever for a connection that
//! never sent its preface (hyperium/hyper#4170): such connections are cut when stopping begins, all others at
//! the deadline.
//!
//! Deliberately absent: gRPC-Web, compression, reflection v1alpha.

use std::{collections::BTreeSet, convert::Infallible, sync::Arc, time::Duration};

use axum::response::IntoResponse;
use futures::future::BoxFuture;
use tokio::{
    net::TcpListener,
    sync::Semaphore,
    time::{sleep, timeout},
};
use tokio_util::{sync::CancellationToken, task::AbortOnDropHandle};
use tonic::{
    body::Body,
    server::NamedService,
    service::{Routes, RoutesBuilder},
};
use tonic_health::{ServingStatus, server::HealthReporter};
use tower::Service;

use super::{
    layer::RequestLayer,
    tls::{self, TlsFiles},
};
use crate::{health::Health, net, shutdown::Shutdown};

/// What a server allows.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Calls that wait for their handler at the same time; more are `RESOURCE_EXHAUSTED`.
    pub calls_max: usize,
    /// Streams of one connection.
    pub streams_max: u32,
    /// Open connections.
    pub connections_max: usize,
    /// Time for a handler whose caller set no deadline, and the most that a caller can ask for. Streams that
    /// have begun are bound only by their caller's deadline.
    pub handler: Duration,
    /// Time for a new connection's preface.
    pub opening: Duration,
    /// Time that a write may be stuck.
    pub write_stall: Duration,
    /// A ping after so much silence.
    pub keepalive: Duration,
    /// Time for the ping's answer.
    pub keepalive_timeout: Duration,
    /// After this long a connection is asked to go, so that load spreads over new replicas.
    pub connection_age: Duration,
    /// Time between asking and cutting.
    pub connection_grace: Duration,
    /// Time for calls in flight once stopping.
    pub drain: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            calls_max: 4096,
            streams_max: 1024,
            connections_max: 4096,
            handler: Duration::from_secs(30),
            opening: Duration::from_secs(5),
            write_stall: Duration::from_secs(30),
            keepalive: Duration::from_secs(20),
            keepalive_timeout: Duration::from_secs(10),
            connection_age: Duration::from_mins(10),
            connection_grace: Duration::from_secs(30),
            drain: Duration::from_secs(25),
        }
    }
}

/// Most bytes of a request's headers.
const HEADER_BYTES_MAX: u32 = 16 * 1024;

/// HTTP/2's preface.
const PREFACE_BYTES: usize = 24;

/// After cutting, tasks need a moment to notice.
const CUT_MAX: Duration = Duration::from_secs(1);

/// How often gRPC health follows [`Health`].
const HEALTH_EVERY: Duration = Duration::from_millis(500);

/// Why a server can't serve.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A certificate can't be read.
    #[error("the certificate can't be used")]
    Certificate(#[from] tls::Error),
    /// tonic refused or failed.
    #[error("the gRPC server failed")]
    Transport(#[from] tonic::transport::Error),
    /// A file descriptor set is broken.
    #[error("a file descriptor set can't be read")]
    Reflection(#[source] Box<tonic_reflection::server::Error>),
}

/// A server in the making.
pub struct Server {
    limits: Limits,
    tls: Option<TlsFiles>,
    health: Health,
    routes: RoutesBuilder,
    services: BTreeSet<String>,
    descriptors: Vec<&'static [u8]>,
}

impl std::fmt::Debug for Server {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Server").field("services", &self.services).field("limits", &self.limits).finish_non_exhaustive()
    }
}

impl Server {
    /// Without services yet; its gRPC health follows `health`.
    pub fn new(health: Health) -> Self {
        Self {
            limits: Limits::default(),
            tls: None,
            health,
            routes: Routes::builder(),
            services: BTreeSet::new(),
            descriptors: vec![tonic_health::pb::FILE_DESCRIPTOR_SET, tonic_reflection::pb::v1::FILE_DESCRIPTOR_SET],
        }
    }

    /// Other limits than the default ones.
    #[must_use]
    pub fn limits(mut self, limits: Limits) -> Self {
        self.limits = limits;
        self
    }

    /// TLS, if there are files.
    #[must_use]
    pub fn tls(mut self, files: Option<TlsFiles>) -> Self {
        self.tls = files;
        self
    }

    /// Adds a generated server; wrap it in [`crate::limited!`] first.
    #[must_use]
    pub fn service<S>(mut self, service: S) -> Self
    where
        S: Service<http::Request<Body>, Error = Infallible> + NamedService + Clone + Send + Sync + 'static,
        S::Response: IntoResponse,
        S::Future: Send + 'static,
    {
        self.services.insert(S::NAME.to_owned());
        self.routes.add_service(service);
        self
    }

    /// Adds an encoded `FileDescriptorSet` for reflection.
    #[must_use]
    pub fn descriptors(mut self, encoded: &'static [u8]) -> Self {
        self.descriptors.push(encoded);
        self
    }

    /// Serves until `shutdown` is stopping, then lets calls finish and cuts what is left at the deadline.
    pub fn serve(mut self, listener: TcpListener, shutdown: &Shutdown) -> BoxFuture<'_, Result<(), Error>> {
        Box::pin(async move {
            let (reporter, health_service) = tonic_health::server::health_reporter();
            let mut reflection = tonic_reflection::server::Builder::configure();
            for encoded in &self.descriptors {
                reflection = reflection.register_encoded_file_descriptor_set(encoded);
            }
            let reflection = reflection.build_v1().map_err(|error| Error::Reflection(Box::new(error)))?;
            let named: Vec<String> = std::iter::once(String::new()).chain(self.services.iter().cloned()).collect();
            self = self.service(health_service).service(reflection);

            let limits = self.limits;
            let stopping = shutdown.stopping().clone();
            let cut = CancellationToken::new();
            let accept = net::Limits {
                connections_max: limits.connections_max,
                opening_bytes: PREFACE_BYTES,
                opening: limits.opening,
                write_stall: limits.write_stall,
            };
            let incoming = net::incoming(listener, accept, stopping.clone(), cut.clone());
            let follow = follow(reporter, self.health.clone(), named, shutdown.leaving().clone());
            let _following = AbortOnDropHandle::new(tokio::spawn(follow));

            let mut server = tonic::transport::Server::builder()
                .max_concurrent_streams(limits.streams_max)
                .http2_keepalive_interval(Some(limits.keepalive))
                .http2_keepalive_timeout(Some(limits.keepalive_timeout))
                .http2_max_header_list_size(HEADER_BYTES_MAX)
                .max_connection_age(limits.connection_age)
                .max_connection_age_grace(limits.connection_grace);
            if let Some(files) = &self.tls {
                server = server.tls_config(files.server()?)?;
            }
            let layer = RequestLayer {
                gate: Arc::new(Semaphore::new(limits.calls_max)),
                services: Arc::new(self.services),
                handler_max: limits.handler,
                stopping: stopping.clone(),
            };
            let serving = server
                .layer(layer)
                .add_routes(self.routes.routes())
                .serve_with_incoming_shutdown(incoming, stopping.clone().cancelled_owned());
            let mut serving = std::pin::pin!(serving);

            let deadline = async {
                stopping.cancelled().await;
                tokio::select! {
                    () = shutdown.ending().cancelled() => {}
                    () = sleep(limits.drain) => {}
                }
            };
            tokio::select! {
                result = &mut serving => return result.map_err(Error::from),
                () = deadline => {}
            }
            tracing::warn!("cutting gRPC connections that did not finish");
            cut.cancel();
            match timeout(CUT_MAX, serving).await {
                Ok(result) => result.map_err(Error::from),
                Err(_) => Ok(()),
            }
        })
    }
}

/// Lets gRPC health say what [`Health`] says, and `NOT_SERVING` from the moment of leaving.
async fn follow(reporter: HealthReporter, health: Health, services: Vec<String>, leaving: CancellationToken) {
    let mut said = None;
    loop {
        let ready = health.ready().ok;
        if said.replace(ready) != Some(ready) {
            let status = if ready { ServingStatus::Serving } else { ServingStatus::NotServing };
            for service in &services {
                reporter.set_service_status(service, status).await;
            }
        }
        if leaving.is_cancelled() {
            std::future::pending::<()>().await;
        }
        tokio::select! {
            () = leaving.cancelled() => {}
            () = sleep(HEALTH_EVERY) => {}
        }
    }
}
