"""What lies behind the door of ``storage``: one module per protocol, and the stream that they share."""
