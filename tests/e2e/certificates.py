"""Certificates that live for two days, made by the openssl command: nothing of ours vouches for its own encoding."""

import ssl
import subprocess


def run(*arguments):
    made = subprocess.run(["openssl", *map(str, arguments)], capture_output=True, text=True, timeout=60)
    assert made.returncode == 0, made.stderr


class Authority:
    """Signs certificates. `folder` holds its own, `<name>.pem`, and its key."""

    def __init__(self, folder, name="ca"):
        self.folder = folder
        self.pem = folder / f"{name}.pem"
        self.key = folder / f"{name}.key"
        self.new_key = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes")
        run("req", "-x509", *self.new_key, "-keyout", self.key, "-out", self.pem, "-days", "2", "-subj", f"/CN={name}")

    def sign(self, name, alternatives="IP:127.0.0.1,DNS:localhost"):
        """The files of a certificate and its key."""
        pem, key, request, more = (self.folder / f"{name}.{end}" for end in ("pem", "key", "csr", "ext"))
        more.write_text(f"subjectAltName={alternatives}\n")
        run("req", *self.new_key, "-keyout", key, "-out", request, "-subj", f"/CN={name}")
        signer = ("-CA", self.pem, "-CAkey", self.key, "-CAcreateserial", "-days", "2")
        run("x509", "-req", "-in", request, *signer, "-extfile", more, "-out", pem)
        return pem, key

    def context(self, shown=None):
        """What a client needs that trusts this authority and nobody else, and shows a certificate if it has one."""
        context = ssl.create_default_context(cafile=self.pem)
        if shown:
            context.load_cert_chain(*shown)
        return context
