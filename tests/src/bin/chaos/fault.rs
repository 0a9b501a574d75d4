//! What can go wrong, and where.

use std::fmt;

/// One of our processes that take part.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Member {
    Gateway(usize),
    Worker(usize),
}

impl Member {
    pub(crate) const ALL: [Self; 4] = [
        Self::Gateway(0),
        Self::Gateway(1),
        Self::Worker(0),
        Self::Worker(1),
    ];
}

/// A connection between two processes, as all those that one opens to the other.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Line {
    /// From a publisher to a gateway.
    Door(usize),
    /// To Redis.
    Queue(Member),
    /// To PostgreSQL.
    Backend(Member),
}

/// Where a fault is. Each place has one at a time; those at different places overlap.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Place {
    Process(Member),
    Sender(usize),
    Queue,
    Backend,
    Line(Line),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    Process(Process),
    Sender(Sender),
    Queue(Queue),
    Backend(Backend),
    Wire(Wire),
}

/// Of a gateway or a worker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Process {
    /// SIGKILL; it comes back when the fault is over.
    Kill,
    /// SIGTERM; it must end well, and comes back.
    Terminate,
    /// SIGSTOP, and SIGCONT at the end.
    Stop,
    /// SIGKILL, and another comes with another name (workers only).
    Replace,
}

/// Of a publisher.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Sender {
    /// SIGKILL; it begins anew with its seed.
    Kill,
}

/// Of Redis.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Queue {
    Kill,
    /// While it rewrites its append-only file.
    KillRewriting,
    Terminate,
    Stop,
    /// It has all the memory that it may have.
    Full,
    /// It exits, which is right.
    DiskFull,
    /// Every client is thrown out, again and again.
    Disconnect,
}

/// Of PostgreSQL.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Backend {
    Kill,
    Terminate,
    Stop,
    /// One of its processes dies, and it ends all others and recovers.
    Crash,
    /// One of its processes is stopped.
    StopOne,
    DiskFull,
    /// It comes back as a standby that is in recovery, and is promoted at the end.
    Recovery,
    ReadOnly,
    /// Nobody is given a connection.
    Crowded,
    /// An outsider locks a table.
    Locked,
    /// Every statement is cancelled, as a time-out does.
    Cancel,
    /// Every connection is ended.
    Disconnect,
}

/// Of a line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Wire {
    Cut,
    Stalled,
    Mute,
    Stranded,
    Slow,
    Torn,
    Narrow,
}

impl Process {
    /// Of a worker.
    pub(crate) const ALL: [Self; 4] = [Self::Kill, Self::Terminate, Self::Stop, Self::Replace];
    /// Of either.
    pub(crate) const OF_ALL: [Self; 3] = [Self::Kill, Self::Terminate, Self::Stop];
}

impl Queue {
    pub(crate) const ALL: [Self; 7] = [
        Self::Kill,
        Self::KillRewriting,
        Self::Terminate,
        Self::Stop,
        Self::Full,
        Self::DiskFull,
        Self::Disconnect,
    ];
}

impl Backend {
    pub(crate) const ALL: [Self; 12] = [
        Self::Kill,
        Self::Terminate,
        Self::Stop,
        Self::Crash,
        Self::StopOne,
        Self::DiskFull,
        Self::Recovery,
        Self::ReadOnly,
        Self::Crowded,
        Self::Locked,
        Self::Cancel,
        Self::Disconnect,
    ];
}

impl Wire {
    pub(crate) const ALL: [Self; 7] = [
        Self::Cut,
        Self::Stalled,
        Self::Mute,
        Self::Stranded,
        Self::Slow,
        Self::Torn,
        Self::Narrow,
    ];
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Process(Process::Kill) => "SIGKILL of",
            Self::Process(Process::Terminate) => "SIGTERM of",
            Self::Process(Process::Stop) => "SIGSTOP of",
            Self::Process(Process::Replace) => "another name for",
            Self::Sender(Sender::Kill) => "restart of",
            Self::Queue(Queue::Kill) => "SIGKILL of the server,",
            Self::Queue(Queue::KillRewriting) => "SIGKILL while it rewrites its file,",
            Self::Queue(Queue::Terminate) => "SIGTERM of the server,",
            Self::Queue(Queue::Stop) => "SIGSTOP of the server,",
            Self::Queue(Queue::Full) => "full memory of",
            Self::Queue(Queue::DiskFull) => "no disk left for",
            Self::Queue(Queue::Disconnect) => "every client thrown out of",
            Self::Backend(Backend::Kill) => "SIGKILL of all of",
            Self::Backend(Backend::Terminate) => "fast shutdown of",
            Self::Backend(Backend::Stop) => "SIGSTOP of all of",
            Self::Backend(Backend::Crash) => "SIGKILL of one process of",
            Self::Backend(Backend::StopOne) => "SIGSTOP of one process of",
            Self::Backend(Backend::DiskFull) => "full disk of",
            Self::Backend(Backend::Recovery) => "recovery of",
            Self::Backend(Backend::ReadOnly) => "read-only transactions in",
            Self::Backend(Backend::Crowded) => "no connection left in",
            Self::Backend(Backend::Locked) => "a locked table in",
            Self::Backend(Backend::Cancel) => "every statement cancelled in",
            Self::Backend(Backend::Disconnect) => "every connection ended by",
            Self::Wire(Wire::Cut) => "cut",
            Self::Wire(Wire::Stalled) => "stall",
            Self::Wire(Wire::Mute) => "loss of answers",
            Self::Wire(Wire::Stranded) => "dead connections",
            Self::Wire(Wire::Slow) => "delay",
            Self::Wire(Wire::Torn) => "torn answers",
            Self::Wire(Wire::Narrow) => "narrow line",
        })
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Process(member) => write!(f, "{member}"),
            Self::Sender(number) => write!(f, "publisher-{number}"),
            Self::Queue => f.write_str("redis"),
            Self::Backend => f.write_str("postgres"),
            Self::Line(Line::Door(number)) => {
                write!(f, "between publisher-{number} and aggregator-{number}")
            }
            Self::Line(Line::Queue(member)) => write!(f, "between {member} and redis"),
            Self::Line(Line::Backend(member)) => write!(f, "between {member} and postgres"),
        }
    }
}

impl fmt::Display for Member {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Gateway(number) => write!(f, "aggregator-{number}"),
            Self::Worker(number) => write!(f, "worker-{number}"),
        }
    }
}
