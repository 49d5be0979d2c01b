//! What orders finds where it looks for inventory's catalog: the real one, behind a door that can be shut and
//! a counter that counts every call.
//!
//! Invariant: an answer is the real catalog's or there is none. What it does can be changed at any time and
//! holds for calls under way at once. Deliberately absent: anything that orders could learn of it.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use holdfast_proto::inventory::v1::{
    CatalogServiceGetStockRequest, CatalogServiceGetStockResponse, GetPricesRequest, GetPricesResponse,
    catalog_service_client::CatalogServiceClient,
    catalog_service_server::{CatalogService, CatalogServiceServer},
};
use libtest_mimic::Failed;
use tokio::{
    net::{TcpListener, TcpStream},
    sync::watch,
    task::JoinHandle,
};
use tonic::{
    Request, Response, Status,
    transport::{Channel, server::TcpIncoming},
};

/// What becomes of a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mood {
    /// The real catalog answers.
    Well,
    /// Connections are reset, those there are and each new one.
    Down,
    /// It is held, and so is its answer.
    Slow,
    /// It is refused at once: UNAVAILABLE.
    Failing,
}

/// The catalog as orders sees it. Ends when it is dropped.
pub struct Catalog {
    /// Where orders is to look for it.
    pub address: String,
    mood: watch::Sender<Mood>,
    arrived: Arc<AtomicU64>,
    tasks: [JoinHandle<()>; 2],
}

impl Drop for Catalog {
    fn drop(&mut self) {
        self.tasks.iter().for_each(JoinHandle::abort);
        let _ = self.mood.send(Mood::Down);
    }
}

impl Catalog {
    /// In front of the inventory at `real`.
    pub async fn open(real: SocketAddr) -> Result<Self, Failed> {
        let (mood, watched) = watch::channel(Mood::Well);
        let arrived = Arc::<AtomicU64>::default();
        let real = CatalogServiceClient::connect(format!("http://{real}")).await?;
        let counting = Counting { real, mood: watched.clone(), arrived: arrived.clone() };
        let inside = TcpListener::bind("127.0.0.1:0").await?;
        let behind = inside.local_addr()?;
        let server = tonic::transport::Server::builder().add_service(CatalogServiceServer::new(counting));
        let serving = tokio::spawn(async move {
            if let Err(error) = server.serve_with_incoming(TcpIncoming::from(inside)).await {
                eprintln!("the catalog: {error}");
            }
        });
        let door = TcpListener::bind("127.0.0.1:0").await?;
        let address = format!("http://{}", door.local_addr()?);
        let guarding = tokio::spawn(guard(door, behind, watched, arrived.clone()));
        Ok(Self { address, mood, arrived, tasks: [serving, guarding] })
    }

    /// Does this from now on.
    pub fn turn(&self, mood: Mood) {
        self.mood.send_replace(mood);
    }

    /// Calls that have come so far, and connections that found the door shut.
    pub fn arrived(&self) -> u64 {
        self.arrived.load(Ordering::SeqCst)
    }
}

/// Lets connections in, and throws them out when it is down.
async fn guard(door: TcpListener, behind: SocketAddr, watched: watch::Receiver<Mood>, arrived: Arc<AtomicU64>) {
    while let Ok((mut client, _)) = door.accept().await {
        if *watched.borrow() == Mood::Down {
            arrived.fetch_add(1, Ordering::SeqCst);
            reset(&client);
            continue;
        }
        let mut watched = watched.clone();
        tokio::spawn(async move {
            let Ok(mut server) = TcpStream::connect(behind).await else { return reset(&client) };
            let _ = (client.set_nodelay(true), server.set_nodelay(true));
            let is_cut = tokio::select! {
                _ = tokio::io::copy_bidirectional(&mut client, &mut server) => false,
                _ = watched.wait_for(|mood| *mood == Mood::Down) => true,
            };
            if is_cut {
                reset(&client);
            }
        });
    }
}

/// The other side sees a reset once the stream is dropped.
fn reset(stream: &TcpStream) {
    let _ = stream.set_zero_linger();
}

#[derive(Clone)]
struct Counting {
    real: CatalogServiceClient<Channel>,
    mood: watch::Receiver<Mood>,
    arrived: Arc<AtomicU64>,
}

#[tonic::async_trait]
impl CatalogService for Counting {
    async fn get_prices(&self, request: Request<GetPricesRequest>) -> Result<Response<GetPricesResponse>, Status> {
        self.arrived.fetch_add(1, Ordering::SeqCst);
        let mut mood = self.mood.clone();
        // A request whose caller has given up is dropped here.
        let mood = mood.wait_for(|mood| *mood != Mood::Slow).await.map_or(Mood::Down, |mood| *mood);
        match mood {
            Mood::Well => self.real.clone().get_prices(request.into_inner()).await,
            _ => Err(Status::unavailable("not now")),
        }
    }

    async fn get_stock(
        &self,
        _: Request<CatalogServiceGetStockRequest>,
    ) -> Result<Response<CatalogServiceGetStockResponse>, Status> {
        Err(Status::unimplemented("orders asks for prices alone"))
    }
}
