"""What the fault tests and the benches share: a real broker, loads, killable members, and an oracle."""
