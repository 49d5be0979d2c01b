//! Tokens against an issuer that publishes its keys over real HTTP: each way of being wrong, and keys that
//! change.

use std::{
    net::SocketAddr,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use holdfast_gateway::{
    identity::{Identity, STAFF, Settings},
    issuer::{AUDIENCE, ISSUER, Issuer, JWKS_PATH},
};
use http::StatusCode;
use jsonwebtoken::{Algorithm, EncodingKey, Header, encode};
use serde_json::{Value, json};
use tokio::{net::TcpListener, task::JoinHandle};
use uuid::Uuid;

const CUSTOMER: &str = "0192f0c1-7b1e-7cc3-8000-00000000000a";

struct Stand {
    issuer: Issuer,
    identity: Identity,
    address: SocketAddr,
    serving: JoinHandle<std::io::Result<()>>,
}

fn trusting(address: SocketAddr) -> Identity {
    Identity::new(Settings {
        jwks_url: format!("http://{address}{JWKS_PATH}"),
        issuer: ISSUER.to_owned(),
        audience: AUDIENCE.to_owned(),
    })
}

async fn stand() -> Stand {
    let issuer = Issuer::new().unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let serving = tokio::spawn(issuer.clone().serve(listener));
    Stand { issuer, identity: trusting(address), address, serving }
}

fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()
}

fn claims() -> Value {
    json!({ "iss": ISSUER, "aud": AUDIENCE, "sub": CUSTOMER, "exp": now() + 600 })
}

/// The claims, changed.
fn with(name: &str, value: Value) -> Value {
    let mut claims = claims();
    claims[name] = value;
    claims
}

fn without(name: &str) -> Value {
    let mut claims = claims();
    claims.as_object_mut().unwrap().remove(name);
    claims
}

impl Stand {
    async fn refused(&self, token: &str) -> (StatusCode, String) {
        let problem = self.identity.verify(token).await.expect_err("it got in");
        (problem.status(), problem.detail().to_owned())
    }
}

#[tokio::test]
async fn a_customers_token_names_the_customer() {
    let stand = stand().await;
    let token = stand.issuer.token(CUSTOMER, "openid", Duration::from_mins(5)).unwrap();
    let caller = stand.identity.verify(&token).await.unwrap();
    assert_eq!(caller.as_customer().unwrap().to_string(), CUSTOMER);
    assert!(caller.is(CUSTOMER) && !caller.is_staff());
    assert!(!caller.may_read(&Uuid::now_v7().to_string()));
    // An issuer may write ids as it likes; they mean the same customer.
    let upper = stand.issuer.token(&CUSTOMER.to_uppercase(), "", Duration::from_mins(5)).unwrap();
    assert_eq!(stand.identity.verify(&upper).await.unwrap().subject(), CUSTOMER);
}

#[tokio::test]
async fn the_staff_may_read_and_is_no_customer() {
    let stand = stand().await;
    let token = stand.issuer.token("grace", &format!("openid {STAFF}"), Duration::from_mins(5)).unwrap();
    let caller = stand.identity.verify(&token).await.unwrap();
    assert!(caller.is_staff() && caller.may_read(CUSTOMER) && !caller.is(CUSTOMER));
    assert_eq!(caller.as_customer().unwrap_err().status(), StatusCode::FORBIDDEN);
    // A scope that begins like it is another.
    let token = stand.issuer.token("grace", "holdfast.staffing", Duration::from_mins(5)).unwrap();
    assert_eq!(stand.refused(&token).await.0, StatusCode::FORBIDDEN);
}

#[tokio::test]
async fn what_is_not_in_force_or_not_for_us_is_refused() {
    let stand = stand().await;
    for (claims, why) in [
        (with("exp", json!(now() - 60)), "expired"),
        (with("nbf", json!(now() + 600)), "not in force yet"),
        (with("aud", json!("another-shop")), "another audience"),
        (with("aud", json!(["another-shop", "a-third"])), "another audience"),
        (with("iss", json!("https://evil.example")), "another issuer"),
        (without("exp"), "not valid"),
        (without("aud"), "not valid"),
        (without("iss"), "not valid"),
        (without("sub"), "not valid"),
        (with("exp", json!("tomorrow")), "not valid"),
    ] {
        let (status, detail) = stand.refused(&stand.issuer.sign(&claims).unwrap()).await;
        assert_eq!(status, StatusCode::UNAUTHORIZED, "{claims}");
        assert!(detail.contains(why), "{claims}: {detail}");
    }
    let both = with("aud", json!(["another-shop", AUDIENCE]));
    assert!(stand.identity.verify(&stand.issuer.sign(&both).unwrap()).await.is_ok());
}

#[tokio::test]
async fn signature_counts_only_by_the_published_key_and_algorithm() {
    let stand = stand().await;
    let good = stand.issuer.sign(&claims()).unwrap();
    let (head, rest) = good.split_once('.').unwrap();
    let (body, signature) = rest.split_once('.').unwrap();
    let published = stand.issuer.published();
    let kid = published.keys[0].common.key_id.clone();

    // `none`, with and without a signature.
    for none in ["eyJhbGciOiJub25lIn0", "eyJhbGciOiJOb25FIiwidHlwIjoiSldUIn0"] {
        assert_eq!(stand.refused(&format!("{none}.{body}.")).await.0, StatusCode::UNAUTHORIZED);
        assert_eq!(stand.refused(&format!("{none}.{body}.{signature}")).await.0, StatusCode::UNAUTHORIZED);
    }
    // What is published, taken for a secret.
    let public = serde_json::to_string(&published.keys[0]).unwrap();
    let header = Header { kid: kid.clone(), ..Header::new(Algorithm::HS256) };
    let confused = encode(&header, &claims(), &EncodingKey::from_secret(public.as_bytes())).unwrap();
    assert_eq!(stand.refused(&confused).await.0, StatusCode::UNAUTHORIZED);
    // Another's key under the issuer's name for its own.
    let stranger = Issuer::new().unwrap();
    let (stranger_head, stranger_rest) = {
        let token = stranger.sign(&claims()).unwrap();
        let (head, rest) = token.split_once('.').unwrap();
        (head.to_owned(), rest.to_owned())
    };
    assert_eq!(stand.refused(&format!("{head}.{stranger_rest}")).await.1, "the token's signature is not its issuer's");
    assert!(stand.refused(&format!("{stranger_head}.{stranger_rest}")).await.1.contains("no key of the issuer's"));
    // Claims changed after they were signed.
    let (_, other) = stand
        .issuer
        .sign(&with("sub", json!(Uuid::now_v7().to_string())))
        .unwrap()
        .split_once('.')
        .map(|(head, rest)| (head.to_owned(), rest.split_once('.').unwrap().0.to_owned()))
        .unwrap();
    assert!(stand.refused(&format!("{head}.{other}.{signature}")).await.1.contains("signature"));
    for garbage in ["", ".", "..", "a.b.c", &"x".repeat(9_000), "\u{1f600}"] {
        assert_eq!(stand.refused(garbage).await.0, StatusCode::UNAUTHORIZED, "{garbage:.20}");
    }
    assert!(stand.identity.verify(&good).await.is_ok());
}

#[tokio::test]
async fn keys_change_without_anybody_being_locked_out() {
    let stand = stand().await;
    let old = stand.issuer.sign(&claims()).unwrap();
    assert!(stand.identity.verify(&old).await.is_ok());
    stand.issuer.rotate().unwrap();
    let new = stand.issuer.sign(&claims()).unwrap();
    // It is asked for at once, unless something else was asked for just now.
    let known = async {
        while stand.identity.verify(&new).await.is_err() {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), known).await.expect("the new key is learnt");
    assert!(stand.identity.verify(&old).await.is_ok(), "the old key is still published");

    stand.issuer.withdraw();
    let fresh = trusting(stand.address);
    assert!(fresh.verify(&new).await.is_ok());
    assert_eq!(fresh.verify(&old).await.unwrap_err().status(), StatusCode::UNAUTHORIZED);
}

#[tokio::test]
async fn absent_issuer_keeps_known_keys_valid_and_admits_no_others() {
    let stand = stand().await;
    let known = stand.issuer.sign(&claims()).unwrap();
    assert!(stand.identity.verify(&known).await.is_ok() && stand.identity.is_able());
    stand.serving.abort();
    let _ = stand.serving.await;
    assert!(stand.identity.verify(&known).await.is_ok());
    stand.issuer.rotate().unwrap();
    let unknown = stand.issuer.sign(&claims()).unwrap();
    assert_eq!(stand.identity.verify(&unknown).await.unwrap_err().status(), StatusCode::UNAUTHORIZED);

    let cold = trusting(stand.address);
    let problem = cold.verify(&known).await.unwrap_err();
    assert_eq!((problem.status(), problem.reason()), (StatusCode::SERVICE_UNAVAILABLE, "ISSUER_UNREACHABLE"));
    assert!(!cold.is_able());
}
