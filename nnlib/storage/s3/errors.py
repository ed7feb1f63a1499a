"""What S3's refusals and broken connections mean: which may pass by themselves, and what to do about the others."""

from __future__ import annotations

from collections.abc import Mapping

import botocore.exceptions
import urllib3.exceptions
from botocore.exceptions import ClientError

from nnlib.core.errors import NnjobsError, StorageError, UsageError

Failure = (botocore.exceptions.BotoCoreError, ClientError, urllib3.exceptions.HTTPError, OSError)
"""What a call of the SDK raises, and the reading of its answer."""

ACTIONS = {
    "HeadBucket": "s3:ListBucket",
    "ListObjectsV2": "s3:ListBucket",
    "HeadObject": "s3:GetObject",
    "DeleteObjects": "s3:DeleteObject",
    "CreateMultipartUpload": "s3:PutObject",
    "UploadPart": "s3:PutObject",
    "CompleteMultipartUpload": "s3:PutObject",
    "ListMultipartUploads": "s3:ListBucketMultipartUploads",
}
"""Operation -> the action that a policy must allow, where it has another name."""

_BUSY = {
    *("InternalError", "ServiceUnavailable", "SlowDown", "Throttling", "ThrottlingException", "RequestLimitExceeded"),
    *("BandwidthLimitExceeded", "RequestTimeout", "RequestTimeoutException", "OperationAborted", "TooManyRequests"),
    "ConditionalRequestConflict",
}
_DAMAGED = {"BadDigest", "InvalidDigest", "XAmzContentChecksumMismatch", "XAmzContentSHA256Mismatch", "IncompleteBody"}
_EXPIRED = {"ExpiredToken", "ExpiredTokenException", "TokenRefreshRequired", "RequestExpired"}
_BROKEN = (
    *(botocore.exceptions.ConnectionError, botocore.exceptions.HTTPClientError),
    *(botocore.exceptions.IncompleteReadError, botocore.exceptions.ResponseStreamingError),
    *(botocore.exceptions.MetadataRetrievalError, botocore.exceptions.CredentialRetrievalError),
    *(urllib3.exceptions.ProtocolError, urllib3.exceptions.TimeoutError, OSError),
)


class TransientError(Exception):
    """It may succeed later. ``renews``: with the credentials read anew; ``is_damage``: bytes came with a wrong
    checksum."""

    def __init__(self, message: str, *, renews: bool = False, is_damage: bool = False) -> None:
        super().__init__(message)
        self.renews, self.is_damage = renews, is_damage


class NotThereError(StorageError):
    """There is no such object."""


def code_of(error: BaseException) -> str:
    """Return the code of a refusal, such as NoSuchKey; "" where there is none. HEAD has the HTTP status for it."""
    if not isinstance(error, ClientError):
        return ""
    return str(error.response.get("Error", {}).get("Code", ""))


def status_of(error: BaseException) -> int:
    """Return the HTTP status of a refusal; 0 where there is none."""
    if not isinstance(error, ClientError):
        return 0
    return int(error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))


def region_in(error: BaseException) -> str | None:
    """Return the region of the bucket that a refusal names."""
    if not isinstance(error, ClientError):
        return None
    headers: Mapping[str, str] = error.response.get("ResponseMetadata", {}).get("HTTPHeaders", {})
    region = error.response.get("Error", {}).get("Region") or headers.get("x-amz-bucket-region")
    return str(region) if region else None


def explained(error: BaseException, bucket: str, resource: str) -> NnjobsError | TransientError:
    """Return what an error of the SDK stands for.

    ``bucket`` is the bucket's name, ``resource`` what was asked for, as policies name it (``arn:aws:s3:::BUCKET/KEY``).
    """
    if isinstance(error, ClientError):
        return _refusal(error, bucket, resource)
    text = str(error)
    if isinstance(error, botocore.exceptions.FlexibleChecksumError):
        return TransientError("it arrives with a wrong checksum", is_damage=True)
    if isinstance(error, botocore.exceptions.SSLError):
        return StorageError(f"no secure connection: {text}", hint="AWS_CA_BUNDLE names the certificates to trust")
    if isinstance(error, botocore.exceptions.NoCredentialsError | botocore.exceptions.PartialCredentialsError):
        return StorageError(
            f"there are no credentials for S3 ({text})",
            hint="set AWS_PROFILE, run `aws configure` or `aws sso login`, or give this machine a role; nnjobs takes "
            "them from the AWS SDK's own places alone",
        )
    if isinstance(error, botocore.exceptions.TokenRetrievalError | botocore.exceptions.SSOError):
        return TransientError("the sign-in has expired: run `aws sso login`", renews=True)
    if isinstance(error, botocore.exceptions.ProfileNotFound | botocore.exceptions.InvalidConfigError):
        return UsageError(f"the AWS configuration cannot be used: {text}", hint="see AWS_PROFILE and ~/.aws/config")
    if isinstance(error, _BROKEN):
        return TransientError(_first_line(text) or type(error).__name__)
    if isinstance(error, ValueError) or type(error).__name__.endswith(("ValidationError", "EndpointError")):
        return UsageError(f"S3 cannot be asked for it: {_first_line(text)}")
    return StorageError(f"S3 cannot be asked: {type(error).__name__}: {_first_line(text)}")


def _refusal(error: ClientError, bucket: str, resource: str) -> NnjobsError | TransientError:
    code, status = code_of(error), status_of(error)
    message = str(error.response.get("Error", {}).get("Message") or "")
    said = f"{code}: {message}" if message and message != code else code or f"HTTP {status}"
    if code in _EXPIRED:
        return TransientError("the credentials have expired: renew them (aws sso login, or a new session)", renews=True)
    if code in _DAMAGED:
        return TransientError(f"it arrived damaged ({said})", is_damage=True)
    if code in _BUSY or status in (429, 500, 502, 503, 504):
        return TransientError(said)
    if code == "NoSuchBucket":
        return StorageError(
            f"there is no bucket {bucket!r}", hint=f"see its name, or make it: aws s3 mb s3://{bucket}", bucket=bucket
        )
    if code in ("NoSuchKey", "NoSuchVersion") or (status == 404 and code in ("404", "NotFound", "")):
        return NotThereError("no such file or directory")
    if code in ("InvalidAccessKeyId", "SignatureDoesNotMatch", "InvalidToken", "InvalidClientTokenId"):
        return StorageError(
            f"S3 does not accept the credentials ({said})", hint="`aws sts get-caller-identity` shows whose they are"
        )
    if code == "RequestTimeTooSkewed":
        return StorageError("the clock of this machine is wrong, so S3 refuses", hint="set it (chronyc makestep, NTP)")
    if code in ("PermanentRedirect", "AuthorizationHeaderMalformed", "IllegalLocationConstraintException", "301"):
        return _elsewhere(error, bucket, said)
    return _forbidden(error, resource, said, code, status) or StorageError(f"S3 refused: {said}")


def _elsewhere(error: ClientError, bucket: str, said: str) -> StorageError:
    region = region_in(error)
    where = f"in {region}" if region else "in another region"
    return StorageError(
        f"the bucket {bucket!r} is {where} ({said})",
        hint=f"set AWS_REGION={region or 'to its region'}; without it nnjobs asks for the region itself",
    )


def _forbidden(error: ClientError, resource: str, said: str, code: str, status: int) -> StorageError | None:
    """What may not be done: for good, or until somebody allows it."""
    text = said.lower()
    if code == "InvalidObjectState":
        kept = error.response.get("Error", {}).get("StorageClass") or "S3 Glacier"
        return StorageError(
            f"is archived ({kept}), so it cannot be read",
            hint="restore it first (aws s3api restore-object), which takes minutes to hours",
        )
    if "object lock" in text or "worm" in text or "objectlock" in text or "retention" in text:
        return StorageError(
            f"the object lock of the bucket forbids it: {said}",
            hint="choose a bucket without object lock: a run replaces and deletes its files",
        )
    if "kms" in text:
        return StorageError(
            f"the key of KMS cannot be used: {said}",
            hint="who reads needs kms:Decrypt, who writes kms:GenerateDataKey and kms:Decrypt on the key",
        )
    if status == 403 or code in ("AccessDenied", "AllAccessDisabled", "Forbidden"):
        action = ACTIONS.get(error.operation_name, f"s3:{error.operation_name}")
        also = " (or s3:ListBucket on the bucket: without it what is not there looks forbidden)"
        return StorageError(
            f"{action} on {resource} is denied: {said}",
            hint=f"let a policy allow {action}{also if action == 's3:GetObject' else ''}; "
            "`aws sts get-caller-identity` shows who asks",
            action=action,
        )
    if code in ("KeyTooLongError", "EntityTooLarge", "InvalidBucketName"):
        return StorageError(f"S3 does not take it: {said}")
    if "quota" in text or "storagefull" in text or code in ("InsufficientCapacity", "InsufficientStorage"):
        return StorageError(
            f"the storage is full: {said}", hint="free some space, then run the same command again (train: --resume)"
        )
    return None


def _first_line(text: str) -> str:
    return (text.splitlines() or [""])[0]


def is_conflict(error: BaseException) -> bool:
    """Return whether another request for the same object came between, so that nothing is decided."""
    return code_of(error) in ("ConditionalRequestConflict", "OperationAborted") or status_of(error) == 409


def lost_the_race(error: BaseException) -> bool:
    """Return whether a conditional write was refused because the object is there."""
    return status_of(error) == 412 or code_of(error) == "PreconditionFailed"


def ignores_conditions(error: BaseException) -> bool:
    """Return whether a service refuses conditional writes as such."""
    return status_of(error) == 501 or code_of(error) in ("NotImplemented", "MethodNotAllowed")


def request_id(error: BaseException) -> str | None:
    """Return the id of a refused request, by which AWS finds it."""
    if not isinstance(error, ClientError):
        return None
    request = error.response.get("ResponseMetadata", {}).get("RequestId")
    return str(request) if request else None
