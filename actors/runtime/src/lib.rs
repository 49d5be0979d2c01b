//! The core loop: supervised aggregate actors over the ports.
