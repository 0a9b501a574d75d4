//! HTTP by hand, for what a client library would not send.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::PATIENCE;

/// One connection.
pub struct Wire(TcpStream);

impl Wire {
    /// Connects.
    pub async fn connect(address: SocketAddr) -> Self {
        Self(TcpStream::connect(address).await.unwrap())
    }

    /// Sends bytes as they are; the other side may have closed already.
    pub async fn send(&mut self, bytes: impl AsRef<[u8]>) -> bool {
        let sending = self.0.write_all(bytes.as_ref());
        tokio::time::timeout(PATIENCE, sending)
            .await
            .unwrap()
            .is_ok()
    }

    /// Reads until so many answers have come (by their status lines), or the other side
    /// closes.
    pub async fn answers(&mut self, count: usize) -> String {
        let mut read = Vec::new();
        let reading = async {
            while String::from_utf8_lossy(&read).matches("HTTP/1.1 ").count() < count
                || !is_whole(&read)
            {
                if self.0.read_buf(&mut read).await.unwrap_or(0) == 0 {
                    break;
                }
            }
        };
        tokio::time::timeout(PATIENCE, reading).await.unwrap();
        String::from_utf8_lossy(&read).into_owned()
    }

    /// Reads until the other side closes.
    pub async fn rest(&mut self) -> String {
        self.answers(usize::MAX).await
    }

    /// Sends no more, and waits until the other side has noticed and closed as well.
    pub async fn hang_up(mut self) {
        self.0.shutdown().await.unwrap();
        let mut read = Vec::new();
        let closed = self.0.read_to_end(&mut read);
        // Closed or reset, it is over.
        let _ = tokio::time::timeout(PATIENCE, closed).await.unwrap();
    }

    /// Whether the other side stays silent and open for so long.
    pub async fn is_silent(&mut self, time: Duration) -> bool {
        let mut byte = [0; 1];
        tokio::time::timeout(time, self.0.read(&mut byte))
            .await
            .is_err()
    }
}

/// Whether the last answer is there with all of the length that it gives.
fn is_whole(read: &[u8]) -> bool {
    let text = String::from_utf8_lossy(read);
    let Some(last) = text.rfind("HTTP/1.1 ") else {
        return false;
    };
    let Some((head, body)) = text[last..].split_once("\r\n\r\n") else {
        return false;
    };
    let length = head
        .lines()
        .find_map(|line| line.strip_prefix("content-length: "));
    length.is_none_or(|length| body.len() >= length.parse().unwrap())
}
