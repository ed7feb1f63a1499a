"""The configuration: what it may say (`schema`), reading it (`load`), writing it (`render`), what decides the bits
(`identity`)."""
