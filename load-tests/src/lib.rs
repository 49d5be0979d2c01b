//! Benchmarks, fault scenarios and checkers that share no code with the runtime.
