//! A proxy through which the first record of a partition doesn't get there at once.
//!
//! It knows where requests begin and end, and no more of Kafka's protocol than is needed to find the first
//! request by which records are produced to a partition. That one it holds until the next of the same
//! connection has come, or doesn't come, and then sends it to a partition that there is none of, before the
//! next: the broker refuses the first, and takes the second. That is what a change of a partition's leader
//! between the two comes to.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use tokio::{
    io::{self, AsyncReadExt as _, AsyncWriteExt as _, copy},
    net::{
        TcpListener, TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
    sync::Notify,
};

/// How long a request waits for the next.
const HELD: Duration = Duration::from_millis(500);
/// A request's key, if it produces records, and where its topic's name is followed by its one partition: by
/// the number of partitions, and one more, in a byte, and then by the partition.
const PRODUCE: [u8; 2] = [0, 0];
const ONE: u8 = 2;
const NO_SUCH_PARTITION: [u8; 4] = i32::MAX.to_be_bytes();

/// What is meant, and whether it has come.
pub struct Unsteady {
    topic: String,
    partition: i32,
    has_come: AtomicBool,
    /// Notified when it comes.
    pub held: Notify,
}

impl Unsteady {
    /// Serves `listener` as a way to `broker`, as long as the test's runtime lives. It is steady but for the
    /// first records of `partition` of `topic`.
    pub fn serve(listener: TcpListener, broker: SocketAddr, topic: &str, partition: i32) -> Arc<Self> {
        let (topic, has_come) = (topic.to_owned(), AtomicBool::new(false));
        let proxy = Arc::new(Self { topic, partition, has_come, held: Notify::new() });
        let of_all = Arc::clone(&proxy);
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let proxy = Arc::clone(&of_all);
                tokio::spawn(async move { proxy.pass_on(client, TcpStream::connect(broker).await?).await });
            }
        });
        proxy
    }

    async fn pass_on(&self, client: TcpStream, broker: TcpStream) -> io::Result<()> {
        let ((mut requests, mut to_client), (mut answers, mut to_broker)) = (client.into_split(), broker.into_split());
        let back = tokio::spawn(async move { copy(&mut answers, &mut to_client).await });
        let passed = self.pass_requests(&mut requests, &mut to_broker).await;
        back.abort();
        passed
    }

    async fn pass_requests(&self, from: &mut OwnedReadHalf, to: &mut OwnedWriteHalf) -> io::Result<()> {
        loop {
            let mut request = read(from).await?;
            if let Some(at) = self.partition_in(&request)
                && !self.has_come.swap(true, Ordering::AcqRel)
            {
                self.held.notify_one();
                let mut behind = Vec::new();
                while tokio::time::timeout(HELD, from.peek(&mut [0])).await.is_ok() {
                    let next = read(from).await?;
                    let is_it = self.partition_in(&next).is_some();
                    behind.push(next);
                    if is_it {
                        break;
                    }
                }
                request[at..at + 4].copy_from_slice(&NO_SUCH_PARTITION);
                to.write_all(&request).await?;
                request = behind.concat();
            }
            to.write_all(&request).await?;
        }
    }

    /// Where in a request the partition is named, if records are produced to it.
    fn partition_in(&self, request: &[u8]) -> Option<usize> {
        if request[4..6] != PRODUCE {
            return None;
        }
        let name = self.topic.as_bytes();
        let after = request.windows(name.len()).position(|found| found == name)? + name.len();
        assert_eq!(request[after], ONE, "one partition in each request");
        (request[after + 1..after + 5] == self.partition.to_be_bytes()).then_some(after + 1)
    }
}

/// A request, with its length before it.
async fn read(from: &mut OwnedReadHalf) -> io::Result<Vec<u8>> {
    let mut request = from.read_u32().await?.to_be_bytes().to_vec();
    let length = u32::from_be_bytes([request[0], request[1], request[2], request[3]]);
    request.resize(4 + usize::try_from(length).expect("small"), 0);
    from.read_exact(&mut request[4..]).await?;
    Ok(request)
}
