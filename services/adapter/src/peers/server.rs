//! The side that answers other nodes.
//!
//! Invariants: it asks the runtime for what this node owns, and forwards nothing; a command is run only if it
//! carries the seal of the context, which no stranger can make, and its source is this node's word.
//! Deliberately absent: authentication of readers. The port is the one that clients use, and [`Admit`] is
//! where a later issue tells nodes from them, by their certificates; with `tls.ca` set, a caller has shown
//! one already, but not whose. Until then a stranger can read here what the public services show as well.

use std::{collections::BTreeMap, sync::Arc};

use holdfast_platform::{errors::Problem, grpc::Server, limited, telemetry::OtelLink};
use holdfast_proto::runtime::v1::{
    CommandRequest, CommandResponse, ReadRequest, ReadResponse,
    actor_service_server::{ActorService, ActorServiceServer},
};
use holdfast_runtime::peers::{HOPS_MAX, Local, PeerError, Question};
use tonic::{Code, Extensions, Request, Response, Status};
use tracing::Span;

use super::wire;

/// Keys of one question at most.
const KEYS_MAX: usize = 1000;

/// Whether the sender of a request with these extensions (its certificates are among them) is a node.
pub type Admit = fn(&Extensions) -> Result<(), Status>;

/// Admits every sender.
pub fn anybody(_: &Extensions) -> Result<(), Status> {
    Ok(())
}

/// What this process answers, by context.
pub type Actors = BTreeMap<&'static str, Arc<dyn Local>>;

/// Adds `ActorService` to `server`.
#[must_use]
pub fn register(server: Server, actors: Actors, admit: Admit) -> Server {
    server.service(limited!(ActorServiceServer::new(Service { actors, admit })))
}

struct Service {
    actors: Actors,
    admit: Admit,
}

impl Service {
    /// The context's actors; none if this process does not run it (any more).
    fn actors<T>(&self, request: &Request<T>, context: &str, hop: u32) -> Result<Option<&Arc<dyn Local>>, Status> {
        (self.admit)(request.extensions())?;
        if !(1..=HOPS_MAX).contains(&hop) {
            return Err(Problem::invalid("INVALID", "a call was forwarded too often")
                .field("hop", "is not 1-2")
                .into());
        }
        tracing::debug!(context, hop, "asked by another node");
        Ok(self.actors.get(context))
    }
}

fn not_served() -> PeerError {
    PeerError::NotOwner { reason: "this process does not run the context".to_owned(), owner: None }
}

#[tonic::async_trait]
impl ActorService for Service {
    async fn command(&self, request: Request<CommandRequest>) -> Result<Response<CommandResponse>, Status> {
        let asked = request.get_ref();
        let actors = self.actors(&request, &asked.context, asked.hop)?;
        let Some(actors) = actors else { return Ok(Response::new(wire::answer_out(Err(not_served())))) };
        let message = request.into_inner().message.ok_or_else(|| missing("message"))?;
        let mut forward = wire::forward_in(message).map_err(missing)?;
        // The way through the loop hangs below this hop; without telemetry here it stays where the sender
        // was.
        if let Some((traceparent, tracestate)) = OtelLink::current(&Span::current()) {
            (forward.call.traceparent, forward.call.tracestate) = (Some(traceparent), tracestate);
        }
        match actors.command_here(forward).await {
            Err(error @ PeerError::Unsealed) => {
                tracing::warn!("a forward without the context's seal was refused");
                let text = format!("{error}; call the public services instead");
                Err(Problem::new(Code::PermissionDenied, "FORWARD_NOT_SEALED", text).into_status())
            }
            answer => Ok(Response::new(wire::answer_out(answer))),
        }
    }

    async fn read(&self, request: Request<ReadRequest>) -> Result<Response<ReadResponse>, Status> {
        let asked = request.get_ref();
        let actors = self.actors(&request, &asked.context, asked.hop)?;
        if !(1..=KEYS_MAX).contains(&asked.keys.len()) {
            return Err(missing("keys"));
        }
        let keys: Vec<Arc<str>> = asked.keys.iter().map(|key| key.as_str().into()).collect();
        let question = Question { kind: &asked.kind, keys: &keys, min_version: asked.min_version };
        let answers = match actors {
            Some(actors) => actors.read_here(question).await,
            None => keys.iter().map(|_| Err(not_served())).collect(),
        };
        Ok(Response::new(ReadResponse { results: answers.into_iter().map(wire::read_out).collect() }))
    }
}

/// A field that no node of ours leaves out.
fn missing(field: &'static str) -> Status {
    Problem::invalid("INVALID", "the request is malformed").field(field, "is missing or malformed").into_status()
}
