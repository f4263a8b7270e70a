//! Architectures known by name: the graph is built here, the weights come from a checkpoint.
//!
//! A family builds a `Blueprint` from its settings: nodes, and the names and shapes of their
//! weights. Weights are compared with blueprints before any of them is used, which also tells which architecture they
//! belong to.

mod blueprint;
mod convnext;
mod densenet;
mod efficientnet_lite;
mod resnet;
mod squeezenet;
mod table;
mod tensors;
mod vgg;
mod vit;
mod weights;

use std::fmt;
use std::str::FromStr;

pub use convnext::ConvNext;
pub use densenet::DenseNet;
pub use efficientnet_lite::EfficientNetLite;
pub use resnet::ResNet;
pub use tensors::{Differences, TensorShapes};
pub use vgg::Vgg;
pub use vit::Vit;

use super::checkpoint::StateDict;
use super::error::{ArrayError, GraphError};
use super::graph::Network;
use super::preprocessing::{ChannelOrder, Preprocessing};
use super::similar_names::similar_names;
use crate::Invalid;
use blueprint::Blueprint;
use weights::Misfit;

/// An architecture with its settings.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Architecture {
    /// Its name, as in torchvision or timm, or of its publication: `resnet50`, `vit_base_patch16_224`.
    pub name: &'static str,
    /// Input size `[C,H,W]` of training. Paddings and position embeddings depend on it.
    pub input: [usize; 3],
    /// The family and its settings.
    pub family: Family,
}

/// A family of architectures, with the settings of one of them.
#[derive(Debug, Clone, Copy, PartialEq)]
#[non_exhaustive]
pub enum Family {
    /// SqueezeNet 1.1 as ported from Caffe to Keras.
    SqueezeNet,
    /// EfficientNet-Lite.
    EfficientNetLite(EfficientNetLite),
    /// ResNet, ResNeXt and Wide ResNet.
    ResNet(ResNet),
    /// VGG.
    Vgg(Vgg),
    /// DenseNet.
    DenseNet(DenseNet),
    /// ConvNeXt.
    ConvNext(ConvNext),
    /// Vision transformers: ViT, DeiT, DINOv2.
    Vit(Vit),
}

/// Whose names the tensors and modules of a network have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Naming {
    /// Those of torchvision, or of the only publication.
    Torchvision,
    /// Those of timm, where they differ.
    Timm,
}

/// Why weights do not fit their architecture.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ArchitectureError {
    /// The tensors are not those of the architecture.
    #[error("{architecture}: the weight file {differences} (its tensors are {found}){}", remedy(fits.as_deref()))]
    Tensors {
        /// The architecture.
        architecture: &'static str,
        /// What is missing, unexpected or has another shape.
        differences: Box<Differences>,
        /// Some of the names in the file.
        found: String,
        /// Name of the architecture that they belong to, if any does.
        fits: Option<String>,
    },
    /// A tensor has infinite or NaN values, perhaps only after batch norm folding.
    #[error("{architecture}: tensor {name} has values that are not finite")]
    NotFinite {
        /// The architecture.
        architecture: &'static str,
        /// Name of the tensor.
        name: String,
    },
    /// A layer does not accept its inputs.
    #[error("{architecture}: {source}")]
    Graph {
        /// The architecture.
        architecture: &'static str,
        /// The layer, and the reason.
        source: GraphError,
    },
    /// A weight tensor cannot be built.
    #[error("{architecture}: {source}")]
    Array {
        /// The architecture.
        architecture: &'static str,
        /// The reason.
        source: ArrayError,
    },
}

fn remedy(fits: Option<&str>) -> String {
    fits.map(|name| format!("; these are the weights of {name}")).unwrap_or_default()
}

impl Architecture {
    /// SqueezeNet 1.1 as ported from Caffe to Keras.
    pub const SQUEEZENET_1_1: Self = Self { name: "squeezenet1.1", input: [3, 227, 227], family: Family::SqueezeNet };

    /// All architectures known by name.
    pub fn all() -> impl Iterator<Item = Self> {
        table::all()
    }

    /// The architecture whose tensors have exactly these names and shapes, with any number of classes; `None` unless
    /// there is exactly one.
    pub fn of_tensors(shapes: &TensorShapes) -> Option<Self> {
        let shapes = canonical_shapes(shapes);
        let mut fitting = Self::all().filter(|architecture| architecture.best_fit(&shapes).1.is_empty());
        let first = fitting.next();
        first.filter(|_| fitting.next().is_none())
    }

    /// The architecture that these weights belong to.
    ///
    /// # Errors
    /// When there is none, or more than one; names the most similar ones.
    pub fn guess(state: &StateDict) -> Result<Self, Invalid> {
        let shapes = state.shapes();
        Self::of_tensors(&shapes).ok_or_else(|| {
            let shapes = canonical_shapes(&shapes);
            let mut similar: Vec<_> = Self::all().map(|other| (other.best_fit(&shapes).1, other)).collect();
            similar.sort_by_key(|(differences, _)| differences.len());
            let example = match similar.first() {
                // Most of its tensors are there.
                Some((differences, other)) if differences.missing.len() < shapes.len() / 2 => {
                    format!("{other}, for which the file {differences}")
                }
                _ => format!("resnet50; no known architecture has the tensors {}", first_names(&shapes)),
            };
            Invalid::missing("architecture", &example)
        })
    }

    /// Compares the names and shapes of tensors with those of the architecture.
    ///
    /// # Errors
    /// [`ArchitectureError::Tensors`] when a tensor is missing, unexpected or has another shape.
    pub fn check(&self, shapes: &TensorShapes) -> Result<(), ArchitectureError> {
        self.check_canonical(&canonical_shapes(shapes)).map(drop)
    }

    /// The usual preprocessing of the architecture's published weights.
    pub fn preprocessing(&self) -> Preprocessing {
        let (range, mean, std) = match self.family {
            Family::EfficientNetLite(_) => (255.0, [127.0; 3], [128.0; 3]),
            Family::SqueezeNet => (255.0, [104.006, 116.669, 122.679], [1.0; 3]),
            // Those of torchvision, timm's own convolutional networks, DeiT and DINOv2.
            _ => (1.0, [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]),
        };
        let order = if self.family == Family::SqueezeNet { ChannelOrder::Bgr } else { ChannelOrder::Rgb };
        Preprocessing { channels: order, range, mean: mean.to_vec(), std: std.to_vec() }
    }

    /// Builds the network from its weights. Convolutions may be stored `[O,I,h,w]` or, as TensorFlow and Keras do,
    /// `[h,w,I,O]`; the number of classes is that of the last layer.
    ///
    /// # Errors
    /// When a tensor is missing, unexpected, has another shape or is not finite.
    pub fn build(&self, state: &StateDict) -> Result<Network, ArchitectureError> {
        let state = state.renamed(tensors::canonical);
        let shapes = state.shapes();
        let blueprint = self.check_canonical(&shapes)?;
        let architecture = self.name;
        let misfit = |why| match why {
            Misfit::NotFinite(name) => ArchitectureError::NotFinite { architecture, name },
            Misfit::Array(source) => ArchitectureError::Array { architecture, source },
        };
        let graph = |source| ArchitectureError::Graph { architecture, source };
        let [channels, height, width] = self.input;
        let mut network = Network::new(channels, height, width);
        let Blueprint { steps, modules, output, .. } = blueprint;
        for step in steps {
            // The check found all of them.
            let stored =
                step.tensors.iter().filter_map(|tensor| state.get(&tensor.name).map(|array| tensor.read(array)));
            let arrays = stored.collect::<Result<Vec<_>, _>>().map_err(misfit)?;
            let op = (step.make)(&arrays).map_err(misfit)?;
            network.push(step.name, op, &step.inputs).map_err(graph)?;
        }
        network.set_outputs(vec![output]);
        for (path, node) in modules {
            network.add_module(path, node);
        }
        network.add_views();
        Ok(network)
    }

    fn check_canonical<'s>(&self, shapes: &'s TensorShapes) -> Result<Blueprint<'s>, ArchitectureError> {
        let (blueprint, differences) = self.best_fit(shapes);
        if differences.is_empty() {
            return Ok(blueprint);
        }
        let fits = Self::of_tensors(shapes).map(|other| other.name.to_owned());
        let differences = Box::new(differences);
        Err(ArchitectureError::Tensors { architecture: self.name, differences, found: first_names(shapes), fits })
    }

    /// The blueprint under the naming that fits the tensors best, and how they differ from it.
    fn best_fit<'s>(&self, shapes: &'s TensorShapes) -> (Blueprint<'s>, Differences) {
        let fit = |naming| {
            let blueprint = self.blueprint(naming, shapes);
            let differences = Differences::between(blueprint.tensors(), shapes);
            (blueprint, differences)
        };
        let first = fit(Naming::Torchvision);
        let has_two = matches!(self.family, Family::Vgg(_) | Family::ConvNext(_) | Family::Vit(_));
        if first.1.is_empty() || !has_two {
            return first;
        }
        let second = fit(Naming::Timm);
        if second.1.len() < first.1.len() { second } else { first }
    }

    fn blueprint<'s>(&self, naming: Naming, shapes: &'s TensorShapes) -> Blueprint<'s> {
        let mut blueprint = Blueprint::new(shapes);
        match &self.family {
            Family::SqueezeNet => squeezenet::draw(&mut blueprint),
            Family::EfficientNetLite(lite) => lite.draw(&mut blueprint),
            Family::ResNet(resnet) => resnet.draw(&mut blueprint),
            Family::Vgg(vgg) => vgg.draw(naming, &mut blueprint),
            Family::DenseNet(densenet) => densenet.draw(&mut blueprint),
            Family::ConvNext(convnext) => convnext.draw(naming, &mut blueprint),
            Family::Vit(vit) => vit.draw(naming, self.input, &mut blueprint),
        }
        blueprint
    }
}

/// Some of the names.
fn first_names(shapes: &TensorShapes) -> String {
    let mut names: Vec<&str> = shapes.keys().take(4).map(String::as_str).collect();
    if shapes.len() > names.len() {
        names.push("…");
    }
    names.join(", ")
}

fn canonical_shapes(shapes: &TensorShapes) -> TensorShapes {
    let canonical =
        |(name, shape): (&String, &Vec<usize>)| Some((tensors::canonical(name)?.into_owned(), shape.clone()));
    shapes.iter().filter_map(canonical).collect()
}

impl fmt::Display for Architecture {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name)
    }
}

impl FromStr for Architecture {
    type Err = Invalid;

    fn from_str(name: &str) -> Result<Self, Invalid> {
        table::find(name).ok_or_else(|| {
            let names: Vec<&str> = Self::all().map(|architecture| architecture.name).collect();
            let similar = similar_names(names.iter().copied(), name);
            let expected = match similar.is_empty() {
                true => format!("one of {}", names.join(", ")),
                false => format!("the name of an architecture, such as {}", similar.join(", ")),
            };
            Invalid::new("architecture", name, expected)
        })
    }
}
