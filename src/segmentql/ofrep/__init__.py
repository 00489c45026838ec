"""OFREP, the OpenFeature Remote Evaluation Protocol: each segment is a boolean flag.

`endpoint.py` responds to requests, whose context `evaluation_context.py` parses. `loaders.py` and
`service.py` read the flags, and `response_bodies.py` writes the bodies of the responses.

Source: https://github.com/open-feature/protocol
"""
