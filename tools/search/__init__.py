"""The search for an update scheme: measuring on the runtime, planning with the compiler."""
