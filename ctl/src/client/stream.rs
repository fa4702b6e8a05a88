//! An answer that goes on: server-sent events of a formation, one after the other.
//!
//! The monitor sends something every second, if only a comment. A stream that is silent for several times
//! as long leads nowhere any more, whatever the connection says of itself.

use super::error::ClientError;
use super::transport::root_cause;
use reqwest::Response;
use serde::de::DeserializeOwned;
use shared::api::Status;
use shared::event::Event;
use std::collections::VecDeque;
use std::time::Duration;

/// Several of the monitor's signs of life.
const LONGEST_SILENCE: Duration = Duration::from_secs(5);
/// A message larger than this is none of a monitor's: a status has some kilobytes.
const MAX_MESSAGE_BYTES: usize = 16 << 20;

/// What a stream brings.
#[derive(Clone, Debug, PartialEq)]
pub enum Streamed {
    /// Something was decided or noticed.
    Event(Box<Event>),
    /// The status is another one now.
    Status(Box<Status>),
    /// Nothing is new, and the monitor is there.
    Alive,
}

/// The events of a formation, and its status.
#[derive(Debug)]
pub struct Stream {
    url: String,
    response: Response,
    parser: Parser,
    read: VecDeque<Message>,
}

impl Stream {
    pub(super) fn new(url: String, response: Response) -> Self {
        Self { url, response, parser: Parser::default(), read: VecDeque::new() }
    }

    /// What comes next; `None` when the monitor has ended it. Can be dropped and called again.
    pub async fn next(&mut self) -> Result<Option<Streamed>, ClientError> {
        loop {
            if let Some(message) = self.read.pop_front() {
                return self.parse(&message).map(Some);
            }
            let chunk = tokio::time::timeout(LONGEST_SILENCE, self.response.chunk()).await;
            let silent = format!("nothing was heard for {} s", LONGEST_SILENCE.as_secs());
            let chunk = chunk.map_err(|_| self.lost(&silent))?;
            let Some(chunk) = chunk.map_err(|error| self.lost(&root_cause(&error)))? else {
                return Ok(None);
            };
            self.read.extend(self.parser.take(&chunk));
            if self.parser.held() > MAX_MESSAGE_BYTES {
                return Err(self.strange("a message without an end"));
            }
        }
    }

    fn parse(&self, message: &Message) -> Result<Streamed, ClientError> {
        match message {
            Message::Comment => Ok(Streamed::Alive),
            Message::Data { event, data } if event == "status" => {
                self.json(data).map(Box::new).map(Streamed::Status)
            }
            Message::Data { data, .. } => self.json(data).map(Box::new).map(Streamed::Event),
        }
    }

    fn json<T: DeserializeOwned>(&self, data: &str) -> Result<T, ClientError> {
        serde_json::from_str(data)
            .map_err(|error| self.strange(&format!("unexpected JSON: {error}")))
    }

    fn lost(&self, why: &str) -> ClientError {
        let why = format!("{}: {why}", self.url);
        ClientError::Unreachable { tried: vec![self.url.clone()], why, maybe_delivered: true }
    }

    fn strange(&self, why: &str) -> ClientError {
        ClientError::Protocol { url: self.url.clone(), why: why.to_owned() }
    }
}

/// A message of a stream.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Message {
    Data { event: String, data: String },
    Comment,
}

/// Puts messages together from pieces that end anywhere.
#[derive(Debug, Default)]
struct Parser {
    /// The begin of a line.
    line: Vec<u8>,
    event: String,
    data: Option<String>,
}

impl Parser {
    /// The messages that a piece completes.
    fn take(&mut self, piece: &[u8]) -> Vec<Message> {
        let mut messages = Vec::new();
        for part in piece.split_inclusive(|byte| *byte == b'\n') {
            self.line.extend_from_slice(part);
            if part.ends_with(b"\n") {
                let line = std::mem::take(&mut self.line);
                messages.extend(self.take_line(String::from_utf8_lossy(&line).trim_end()));
            }
        }
        messages
    }

    /// How much of an unfinished message there is.
    fn held(&self) -> usize {
        self.line.len() + self.data.as_ref().map_or(0, String::len)
    }

    fn take_line(&mut self, line: &str) -> Option<Message> {
        if line.is_empty() {
            let event = std::mem::take(&mut self.event);
            return self.data.take().map(|data| Message::Data { event, data });
        }
        let (field, value) = line.split_once(':').unwrap_or((line, ""));
        let value = value.strip_prefix(' ').unwrap_or(value);
        match field {
            "" => return Some(Message::Comment),
            "event" => value.clone_into(&mut self.event),
            "data" => match &mut self.data {
                Some(data) => {
                    data.push('\n');
                    data.push_str(value);
                }
                None => self.data = Some(value.to_owned()),
            },
            // The id stands in the event itself; others are of no use here.
            _ => {}
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "id: 1\nevent: phase\ndata: {\"a\":1}\n\n:\n\nevent: status\r\ndata: é\r\n\
                        data: ü\n\nevent: forgotten\n\ndata: last\n\n";

    fn data(event: &str, data: &str) -> Message {
        Message::Data { event: event.to_owned(), data: data.to_owned() }
    }

    #[test]
    fn pieces_may_end_anywhere() {
        let expected = [
            data("phase", "{\"a\":1}"),
            Message::Comment,
            data("status", "é\nü"),
            data("", "last"),
        ];
        for size in 1..TEXT.len() {
            let mut parser = Parser::default();
            let pieces = TEXT.as_bytes().chunks(size);
            let messages: Vec<_> = pieces.flat_map(|piece| parser.take(piece)).collect();
            assert_eq!(messages, expected, "in pieces of {size}");
            assert_eq!(parser.held(), 0);
        }
    }

    #[test]
    fn what_has_not_ended_is_held() {
        let mut parser = Parser::default();
        assert!(parser.take(b"data: 123\ndata: 4").is_empty());
        assert_eq!(parser.held(), 10);
    }
}
