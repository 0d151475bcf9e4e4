//! Between the client of the API server and its connections: every answer passes the filter of what was asked for.

use std::task::{Context, Poll};

use bytes::Bytes;
use futures::future::BoxFuture;
use http::header::CONTENT_LENGTH;
use http::{Request, Response};
use http_body_util::BodyExt as _;
use http_body_util::combinators::UnsyncBoxBody;
use hyper::body::Body;
use tower::{Layer, Service};

use super::filter::{Filter, ManagedFields, Rule, Size};

/// Makes the answers lean of whatever it is laid around.
#[derive(Clone, Copy, Debug, Default)]
pub struct LeanLayer;

impl<S> Layer<S> for LeanLayer {
    type Service = Lean<S>;

    fn layer(&self, inner: S) -> Lean<S> {
        Lean { inner }
    }
}

/// A connection whose answers lack what nobody here reads.
#[derive(Clone, Debug)]
pub struct Lean<S> {
    inner: S,
}

impl<S, A, B> Service<Request<A>> for Lean<S>
where
    S: Service<Request<A>, Response = Response<B>>,
    S::Future: Send + 'static,
    B: Body<Data = Bytes> + Send + 'static,
{
    type Response = Response<UnsyncBoxBody<Bytes, B::Error>>;
    type Error = S::Error;
    type Future = BoxFuture<'static, Result<Self::Response, S::Error>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: Request<A>) -> Self::Future {
        let rule = rule(request.uri().path());
        let answer = self.inner.call(request);
        Box::pin(async move {
            let (mut head, body) = answer.await?.into_parts();
            // It says how long the answer was before.
            head.headers.remove(CONTENT_LENGTH);
            let mut filter = Filter::new(rule);
            let lean = body.map_frame(move |frame| {
                frame.map_data(|data| Bytes::from(filter.handle_bytes(&data)))
            });
            Ok(Response::from_parts(head, lean.boxed_unsync()))
        })
    }
}

/// What nobody reads of what a path leads to, and whether the rest is bounded.
fn rule(path: &str) -> Rule {
    let all = Rule {
        managed_fields: ManagedFields::Dropped,
        annotations: true,
        labels: true,
        owners: true,
        size: Size::Bounded,
    };
    match resource(path) {
        // Whose fields of our Services are, is looked at before they are applied.
        Some("services") => Rule {
            managed_fields: ManagedFields::Thin,
            ..all
        },
        Some("ssmsessions") => Rule {
            annotations: false,
            labels: false,
            owners: false,
            ..all
        },
        Some("endpointslices") => Rule {
            annotations: false,
            ..all
        },
        Some("ssmsessionclasses" | "ssmlisteners" | "leases") => all,
        // Nobody but an administrator writes them, and our own definitions are large.
        Some(_) | None => Rule {
            size: Size::Any,
            ..all
        },
    }
}

/// The resource that a path names, such as `services`.
fn resource(path: &str) -> Option<&str> {
    let mut parts = path.split('/').filter(|part| !part.is_empty());
    // `api/v1`, or `apis/<group>/<version>`.
    let skip = match parts.next()? {
        "api" => 1,
        "apis" => 2,
        _ => return None,
    };
    let rest: Vec<&str> = parts.skip(skip).collect();
    match rest.as_slice() {
        ["namespaces", _, resource, ..] | [resource, ..] => Some(resource),
        [] => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_asked_for_is_read_from_the_path() {
        for (path, expected) in [
            ("/api/v1/services", Some("services")),
            ("/api/v1/namespaces/services/services/x", Some("services")),
            ("/api/v1/namespaces/services", Some("namespaces")),
            ("/api/v1/namespaces/services/events", Some("events")),
            (
                "/apis/ssm-operator.dev/v1alpha1/namespaces/a/ssmsessions/b/status",
                Some("ssmsessions"),
            ),
            (
                "/apis/coordination.k8s.io/v1/namespaces/a/leases",
                Some("leases"),
            ),
            ("/version", None),
        ] {
            assert_eq!(resource(path), expected, "{path}");
        }
    }
}
