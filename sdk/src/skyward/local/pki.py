"""Certificates and keys of one control plane.

An authority is made in memory, signs one server and one client certificate, and is forgotten: nobody can ever
issue another. etcd accepts only that client certificate, since its port would otherwise be open to every user
of the machine. All files are 0600.
"""

import datetime
import ipaddress
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from skyward.local.home import write_private

_VALID = datetime.timedelta(days=3650)
_RENEW_BEFORE = datetime.timedelta(days=30)
_CLOCK_SKEW = datetime.timedelta(hours=1)


@dataclass(frozen=True, slots=True)
class Pki:
    """Where the files are."""

    folder: Path

    @property
    def authority(self) -> Path:
        """Certificate of the authority."""
        return self.folder / "ca.crt"

    @property
    def server_certificate(self) -> Path:
        """Certificate of both servers, for the loopback interface."""
        return self.folder / "server.crt"

    @property
    def server_key(self) -> Path:
        """Key of `server_certificate`."""
        return self.folder / "server.key"

    @property
    def client_certificate(self) -> Path:
        """The API server's certificate towards etcd."""
        return self.folder / "etcd-client.crt"

    @property
    def client_key(self) -> Path:
        """Key of `client_certificate`."""
        return self.folder / "etcd-client.key"

    @property
    def service_account_key(self) -> Path:
        """Key that signs service account tokens."""
        return self.folder / "service-account.key"


def ensure_pki(folder: Path) -> Pki:
    """Keep what is good in `folder`; make anew what is missing, damaged or about to expire."""
    pki = Pki(folder)
    if not pki.service_account_key.exists():
        write_private(pki.service_account_key, _pem(ec.generate_private_key(ec.SECP256R1())))
    if not _certificates_are_good(pki):
        _Authority().issue_all(pki)
    return pki


def _certificates_are_good(pki: Pki) -> bool:
    if not (pki.server_key.exists() and pki.client_key.exists()):
        return False
    soon = datetime.datetime.now(datetime.UTC) + _RENEW_BEFORE
    try:
        authority = x509.load_pem_x509_certificate(pki.authority.read_bytes())
        for path in (pki.server_certificate, pki.client_certificate):
            certificate = x509.load_pem_x509_certificate(path.read_bytes())
            certificate.verify_directly_issued_by(authority)
            if certificate.not_valid_after_utc < soon:
                return False
    except (OSError, ValueError, TypeError, InvalidSignature):
        return False
    return True


class _Authority:
    """Signs, and is forgotten with this object."""

    def __init__(self) -> None:
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = _name("skyward-local")
        self._now = datetime.datetime.now(datetime.UTC)

    def issue_all(self, pki: Pki) -> None:
        """Write the certificates; the authority's own comes last and makes the set whole."""
        # etcd calls its own port with its server certificate: that one needs both usages
        both = [ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]
        self._issue("skyward-local-server", both, pki.server_certificate, pki.server_key)
        client = [ExtendedKeyUsageOID.CLIENT_AUTH]
        self._issue("skyward-local-etcd-client", client, pki.client_certificate, pki.client_key)
        builder = x509.CertificateBuilder().subject_name(self._name).public_key(self._key.public_key())
        builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        usage = builder.add_extension(_key_usage(signs_certificates=True), critical=True)
        write_private(pki.authority, self._sign(usage, self._key.public_key()))

    def _issue(self, name: str, usages: list[x509.ObjectIdentifier], certificate: Path, key: Path) -> None:
        private = ec.generate_private_key(ec.SECP256R1())
        loopback = [x509.DNSName("localhost"), x509.IPAddress(ipaddress.IPv4Address("127.0.0.1"))]
        builder = (
            x509.CertificateBuilder()
            .subject_name(_name(name))
            .public_key(private.public_key())
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(_key_usage(signs_certificates=False), critical=True)
            .add_extension(x509.ExtendedKeyUsage(usages), critical=False)
            .add_extension(x509.SubjectAlternativeName(loopback), critical=False)
        )
        write_private(key, _pem(private))
        write_private(certificate, self._sign(builder, private.public_key()))

    def _sign(self, builder: x509.CertificateBuilder, key: ec.EllipticCurvePublicKey) -> bytes:
        # Python 3.13 verifies strictly: without both key identifiers it refuses the certificate
        issuer = x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key())
        certificate = (
            builder.add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
            .add_extension(issuer, critical=False)
            .issuer_name(self._name)
            .serial_number(x509.random_serial_number())
            .not_valid_before(self._now - _CLOCK_SKEW)
            .not_valid_after(self._now + _VALID)
            .sign(self._key, hashes.SHA256())
        )
        return certificate.public_bytes(Encoding.PEM)


def _name(common_name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])


def _key_usage(*, signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs_certificates,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    # Go reads the traditional form of an EC key everywhere; PKCS#8 not in every flag of the API server
    return key.private_bytes(Encoding.PEM, PrivateFormat.TraditionalOpenSSL, NoEncryption())
