//! `holdfast.admin.v1`: what a running node tells its operators.
//!
//! Invariant: nothing is answered to who does not show the operators' token, and without a configured token
//! to nobody; how long a refusal takes says nothing about the token. Actors are reached through the
//! [`Router`] port, like any caller's. Deliberately absent: changing anything.

use std::{collections::BTreeMap, sync::Arc};

use holdfast_adapter::{
    call::{self, Caller},
    read,
    shown::Kind,
    status,
};
use holdfast_platform::{Context, config::Secret, errors::Problem, grpc::Server, limited};
use holdfast_proto::admin::v1::{
    Actor, GetActorRequest, GetActorResponse,
    actor_service_server::{ActorService, ActorServiceServer},
};
use holdfast_runtime::{Consistency, Router};
use sha2::{Digest as _, Sha256};
use tonic::{Code, Request, Response, Status, metadata::MetadataMap};

use crate::contexts;

/// The metadata key that carries the token, as `Bearer <token>`.
pub const AUTHORIZATION: &str = "authorization";

/// Adds the services for operators to `server`; `routers` reach the actors of each context that this process
/// serves.
#[must_use]
pub fn register(server: Server, token: Option<Secret>, routers: BTreeMap<Context, Arc<dyn Router>>) -> Server {
    server.service(limited!(ActorServiceServer::new(Actors { gate: Gate(token), routers })))
}

/// The kinds of aggregates of `context`.
pub fn kinds(context: Context) -> &'static [Kind] {
    contexts::about(context).kinds
}

/// Lets operators in.
struct Gate(Option<Secret>);

impl Gate {
    fn check(&self, metadata: &MetadataMap) -> Result<(), Status> {
        let Some(token) = &self.0 else {
            let text = "this node lets no operator in: set admin.token (HOLDFAST_ADMIN_TOKEN) on it";
            return Err(Problem::new(Code::PermissionDenied, "NO_OPERATOR_TOKEN", text).into_status());
        };
        let shown = metadata.get(AUTHORIZATION).and_then(|value| value.to_str().ok());
        let Some(shown) = shown.and_then(|value| value.strip_prefix("Bearer ")) else {
            let text = "an operator shows `authorization: Bearer <admin.token>`";
            return Err(Problem::new(Code::Unauthenticated, "TOKEN_MISSING", text).into_status());
        };
        if is_same(shown, token.expose()) {
            Ok(())
        } else {
            let text = "this is not the node's admin.token (HOLDFAST_ADMIN_TOKEN)";
            Err(Problem::new(Code::PermissionDenied, "TOKEN_WRONG", text).into_status())
        }
    }
}

/// Compares digests, and all of them: neither length nor the first difference shows in the time it takes.
fn is_same(one: &str, other: &str) -> bool {
    let (one, other) = (Sha256::digest(one), Sha256::digest(other));
    let differing = one.iter().zip(&other).fold(0, |differing, (one, other)| differing | (one ^ other));
    std::hint::black_box(differing) == 0
}

struct Actors {
    gate: Gate,
    routers: BTreeMap<Context, Arc<dyn Router>>,
}

/// An argument at fault.
fn invalid(field: &str, text: String) -> Status {
    Problem::invalid("INVALID", text.clone()).field(field, text).into_status()
}

#[tonic::async_trait]
impl ActorService for Actors {
    async fn get_actor(&self, request: Request<GetActorRequest>) -> Result<Response<GetActorResponse>, Status> {
        self.gate.check(request.metadata())?;
        let deadline = Caller::of(&request).deadline();
        let GetActorRequest { context, kind, id } = request.into_inner();
        let named: Context = context.parse().map_err(|_| invalid("context", "no context has this name".to_owned()))?;
        let Some(router) = self.routers.get(&named) else {
            let text = format!("this process does not serve {named}; ask one that does");
            return Err(Problem::rejected("NOT_SERVED", text).into_status());
        };
        if id.is_empty() {
            return Err(invalid("id", "id is missing".to_owned()));
        }
        let wanted: Vec<&Kind> = kinds(named).iter().filter(|known| kind.is_empty() || known.name == kind).collect();
        if wanted.is_empty() {
            let known: Vec<&str> = kinds(named).iter().map(|known| known.name).collect();
            return Err(invalid("kind", format!("{named} has the kinds {}", known.join(", "))));
        }
        let kinds = wanted.len();
        let mut malformed = Vec::new();
        for kind in wanted {
            let answer = match call::read(&**router, deadline, kind.name, &id, Consistency::Strong, 0).await {
                // A key of one kind may be none of another.
                Err(status) if status.code() == Code::InvalidArgument => {
                    malformed.push(status);
                    continue;
                }
                answer => answer?,
            };
            if !answer.exists || answer.body.is_empty() {
                continue;
            }
            let state_json = (kind.json)(&answer.body).map_err(|error| status::internal(&error))?;
            let (version, kind) = (answer.version, kind.name.to_owned());
            let actor = Some(Actor { context, kind, id, version, state_json });
            return Ok(Response::new(GetActorResponse { actor, read: Some(read::info(version, answer.strong)) }));
        }
        if malformed.len() == kinds
            && let Some(status) = malformed.pop()
        {
            return Err(status);
        }
        Err(Problem::not_found("ACTOR_NOT_FOUND", format!("{named} has no such aggregate")).into_status())
    }
}

#[cfg(test)]
mod tests {
    use holdfast_platform::{Config, config::Sources, errors::reason};

    use super::*;

    const TOKEN: &str = "a-token-that-nobody-guesses";

    fn gate(token: &str) -> Gate {
        let environment = vec![("HOLDFAST_ADMIN_TOKEN".into(), token.into())];
        Gate(Config::load(&Sources { environment, ..Sources::default() }).unwrap().admin_token)
    }

    fn refused(gate: &Gate, shown: Option<&str>) -> Option<(Code, String)> {
        let mut metadata = MetadataMap::new();
        if let Some(shown) = shown {
            metadata.insert(AUTHORIZATION, shown.parse().unwrap());
        }
        gate.check(&metadata).err().map(|status| (status.code(), reason(&status).unwrap()))
    }

    #[test]
    fn only_the_very_token_opens_the_gate() {
        let gate = gate(TOKEN);
        assert_eq!(refused(&gate, Some(&format!("Bearer {TOKEN}"))), None);
        let missing = Some((Code::Unauthenticated, "TOKEN_MISSING".to_owned()));
        for shown in [None, Some(""), Some(TOKEN), Some("Basic YTpi"), Some("bearer x")] {
            assert_eq!(refused(&gate, shown), missing, "{shown:?}");
        }
        let wrong = Some((Code::PermissionDenied, "TOKEN_WRONG".to_owned()));
        for shown in ["", "a-token-that-nobody-guesse", "a-token-that-nobody-guessess", "A-token-that-nobody-guesses"] {
            assert_eq!(refused(&gate, Some(&format!("Bearer {shown}"))), wrong, "{shown}");
        }
    }

    #[test]
    fn a_node_without_a_token_lets_nobody_in_and_says_what_to_set() {
        let gate = gate("");
        for shown in [None, Some("Bearer "), Some("Bearer anything-at-all-of-length")] {
            assert_eq!(refused(&gate, shown), Some((Code::PermissionDenied, "NO_OPERATOR_TOKEN".to_owned())));
        }
        assert!(gate.check(&MetadataMap::new()).unwrap_err().message().contains("HOLDFAST_ADMIN_TOKEN"));
    }
}
