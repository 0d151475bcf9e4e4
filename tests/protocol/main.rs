//! Two ends on virtual time: our port session, and an agent that shares none of its code, over a
//! network that loses, doubles, delays and reorders by a seed. Nothing waits for real.

mod agent;
mod delivery;
mod handshake;
mod limits;
mod refusal;
mod transport;
mod wire;
mod world;
